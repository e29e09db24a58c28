"""Options of a training run, checked without loading TensorFlow."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import object_detection_configs
from mobiledets_tf import architecture as architectures
from mobiledets_tf.distribution import StrategyOptions
from mobiledets_tf.errors import InputError
from mobiledets_tf.options import option
from mobiledets_tf.weights import trained_folder, zoo

if TYPE_CHECKING:  # These modules import TensorFlow.
    from mobiledets_tf.detection.training_config import Job
    from mobiledets_tf.detection.training_run import Options as RunOptions

PRESETS = ("finetune", "small")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(StrategyOptions):
    """Options of a training run: the flags of `mobiledets-train`, with `evaluate` in place of `--mode`.

    None keeps the value of the pipeline config; the value in a generated config is given in brackets.

    Attributes:
      model_dir: folder of the training run; an interrupted run in it is resumed.
      architecture: a published network (`cpu`, `edgetpu`, `dsp`, `gpu`) or an architecture file; by default
        the network of `init_from`.
      train_data: converted data folder, or a glob pattern of TFRecord files.
      eval_data: likewise for evaluation; by default the folder of `train_data`.
      evaluate: whether every checkpoint is evaluated and the best one is kept.
      pipeline_config: pipeline config of the Object Detection API to start from: a file, or the name of a
        config shipped with this project; by default a config is generated.
      init_from: weights to start from: a folder or checkpoint of this project, a TF1 checkpoint, a .tflite
        file, or `zoo:cpu`, `zoo:edgetpu`, `zoo:dsp`; weights of another architecture are remapped.
      weights_cache: folder for downloaded weights.
      preset: `finetune` or `small`: derives steps, batch size, learning rate and augmentation from the
        size of the data; other fields take precedence.
      quantization_aware: whether int8 rounding is simulated during training; needs `init_from`.
      steps: number of training steps (2000).
      batch_size: images per step (16).
      num_classes: number of classes without the background (from the label map).
      learning_rate: base learning rate (0.2).
      image_size: side of the square input, in pixels (320).
      depth_multiplier: scales all widths (1).
      random_flip: whether images are mirrored at random (no); wrong for digits, letters and signs.
      random_crop: whether SSD's random crop is applied (no).
      random_color: whether brightness, contrast, hue and saturation vary (no).
      random_scale: whether objects are made smaller at random (no).
      early_stop: number of consecutive evaluations without a better AP after which training ends.
      max_damaged_records: number of damaged TFRecords to skip before failing.
      cache: whether decoded training images are kept in memory.
      mixed_precision: whether the network computes in bfloat16.
      seed: seed of weights, shuffling and augmentation.
    """

    model_dir: str
    architecture: str | None = None
    train_data: str | None = None
    eval_data: str | None = None
    evaluate: bool = True
    pipeline_config: str | None = None
    init_from: str | None = None
    weights_cache: str | None = None
    preset: str | None = option(None, choices=PRESETS)
    quantization_aware: bool | None = None
    steps: int | None = option(None, low=1)
    batch_size: int | None = option(None, low=1)
    num_classes: int | None = option(None, low=1)
    learning_rate: float | None = None
    image_size: int | None = None
    depth_multiplier: float | None = None
    random_flip: bool | None = None
    random_crop: bool | None = None
    random_color: bool | None = None
    random_scale: bool | None = None
    early_stop: int | None = option(None, low=1)
    max_damaged_records: int = option(0, low=0)
    cache: bool = False
    mixed_precision: bool | None = None
    seed: int = option(0, low=0)

    @property
    def started(self) -> bool:
        """Whether the folder already contains a training run."""
        return (Path(self.model_dir) / "pipeline.config").exists()

    def check(self) -> None:
        """Makes the checks that take at most a second and don't load TensorFlow.

        Raises:
          InputError: an option is out of range, contradicts another one, or names a file that does not
            exist; or a required option is missing.
        """
        if self.architecture is not None:
            architectures.load(self.architecture)
        if self.image_size is not None:
            architectures.image_hw(self.image_size)
        for name in ("learning_rate", "depth_multiplier"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 100:
                raise InputError(f"--{name}={value}; allowed: above 0, at most 100")
        if self.pipeline_config is not None:
            object_detection_configs.find(self.pipeline_config)
        if self.init_from is not None:
            zoo.check_exists("init_from", self.init_from)
        if self.early_stop is not None and not self.evaluate:
            raise InputError("--early_stop requires --mode=train_and_eval, because it counts evaluations")
        if self.quantization_aware and self.mixed_precision:
            raise InputError(
                "--quantization_aware cannot be combined with --mixed_precision: it rounds float32 values"
            )
        self.check_strategy()
        self._check_start()

    def _check_start(self) -> None:
        """Checks that a new training run has a network and, where necessary, weights to start from."""
        if self.started:
            return
        for flag, given in (
            ("--preset=finetune", self.preset == "finetune"),
            ("--quantization_aware", self.quantization_aware),
        ):
            if given and self.init_from is None:
                raise InputError(f"{flag} requires --init_from, because it starts from trained weights")
        if not (self.architecture or self.pipeline_config or self._initial_folder() or self._zoo_network()):
            raise InputError("--architecture or --pipeline_config is required to start a training run")

    def initial_path(self) -> str:
        """Returns the local path of the weights to start from; published ones are downloaded."""
        if self.init_from is None:
            raise InputError("--init_from is needed: there are no weights to start from")
        return zoo.local(self.init_from, self.weights_cache)

    def _initial_folder(self) -> Path | None:
        """Returns the folder of `init_from` if it describes the network of the weights, otherwise None."""
        if self.init_from is None:
            return None
        folder = trained_folder.folder_of(self.init_from)
        return folder if trained_folder.names_network(folder) else None

    def _zoo_network(self) -> str | None:
        """Returns the name of the network if `init_from` names published weights, otherwise None."""
        if self.init_from is None or not zoo.is_name(self.init_from):
            return None
        return zoo.check_name(self.init_from)

    def _network(self) -> dict[str, Any]:
        """Returns the overrides of network settings: those given or, by default, those of `init_from`."""
        side = self.image_size
        given = {
            "architecture": self.architecture,
            "image_size": None if side is None else (side, side),
            "depth_multiplier": self.depth_multiplier,
        }
        if self.architecture or self.pipeline_config or self.started:
            return given
        folder = self._initial_folder()
        if folder is None:
            return given | {"architecture": self._zoo_network()}
        settings = trained_folder.settings(folder)
        found = {
            "architecture": str(folder / trained_folder.ARCHITECTURE),
            "image_size": tuple(settings["image_size"]),
            "depth_multiplier": settings["depth_multiplier"],
        }
        return {name: found[name] if value is None else value for name, value in given.items()}

    def job(self) -> "Job":
        """Returns the input from which the run's config is made; loads TensorFlow."""
        from mobiledets_tf.detection import pipeline_config, training_config

        config = self.pipeline_config
        return training_config.Job(
            model_dir=self.model_dir,
            pipeline_config=config and object_detection_configs.find(config),
            train_data=self.train_data,
            eval_data=self.eval_data,
            needs_eval=self.evaluate,
            preset=self.preset,
            max_damaged_records=self.max_damaged_records,
            overrides=pipeline_config.Overrides(
                **self._network(),
                num_classes=self.num_classes,
                batch_size=self.batch_size,
                steps=self.steps,
                learning_rate=self.learning_rate,
                random_flip=self.random_flip,
                random_crop=self.random_crop,
                random_color=self.random_color,
                random_scale=self.random_scale,
                quantization_aware=self.quantization_aware,
                mixed_precision=self.mixed_precision,
            ),
        )

    def run_options(self) -> "RunOptions":
        """Returns the options that are not part of the config; loads TensorFlow."""
        from mobiledets_tf.detection import training_run

        return training_run.Options(self.seed, self.evaluate, self.early_stop, self.cache)
