"""Options of an export and of a check for an accelerator, checked without loading TensorFlow."""

import dataclasses
import os
from typing import TYPE_CHECKING

from mobiledets_tf import files
from mobiledets_tf.data import records
from mobiledets_tf.errors import InputError
from mobiledets_tf.options import Options, option
from mobiledets_tf.weights import trained_network
from tflite_export.devices import COMPILING
from tflite_export.tflite.suppression import NMS, SHIPPED, Suppression

if TYPE_CHECKING:  # This module imports TensorFlow.
    from tflite_export.export.exporter import Settings

QUANTIZATIONS = ("float", "int8", "qat")
INPUT_TYPES = ("int8", "uint8", "float")
POSTPROCESSING = ("tflite", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Options of an export: the flags of `mobiledets-export`.

    Attributes:
      output_dir: folder to write; it is written completely or not at all.
      architecture: a published network or an architecture file; by default the network of
        `checkpoint_dir`.
      checkpoint_dir: training folder, or a checkpoint in one; without it, newly initialised weights are
        exported, for timing only.
      num_classes: number of classes without the background; by default that of the training, or 90.
      image_size: side of the square input, in pixels; by default that of the training, or 320.
      depth_multiplier: scales all widths; by default that of the training, or 1.
      calibration_data: images that set the int8 ranges: a converted folder (its train shards) or a pattern
        of TFRecord files. Required for int8 with a checkpoint; without a checkpoint, noise is used.
      calibration_images: number of calibration images.
      eval_data: images on which AP is measured: a converted folder (its val shards) or a pattern of
        TFRecord files.
      max_eval_images: maximum number of these images, from the beginning; None for all.
      max_ap_drop: largest allowed drop of AP from the float model to the file; otherwise the export fails.
      max_output_error: largest allowed relative error of the int8 file's raw outputs; likewise.
      per_tensor: whether a convolution has one weight scale instead of one per channel.
      quantization: `float`, `int8` (after training) or `qat` (a checkpoint of quantisation-aware training).
      input_type: `uint8` (raw pixels), `int8` or `float` ([-1, 1]); by default `float` for a float file,
        otherwise `uint8`.
      postprocess: `tflite` for boxes after TFLite_Detection_PostProcess, `none` for raw boxes and scores.
      nms: `fast` or `regular`; see `suppression.Suppression`.
      score_threshold: the file drops detections with lower scores; AP is measured at 1e-8.
      max_detections: maximum number of detections that the file returns for an image; AP is measured
        with 100.
      bundle: whether a folder for deployment is written, too.
      seed: seed of the sample of calibration images and of newly initialised weights.
    """

    output_dir: str
    architecture: str | None = None
    checkpoint_dir: str | None = None
    num_classes: int | None = option(None, low=1)
    image_size: int | None = option(None, low=1)
    depth_multiplier: float | None = None
    calibration_data: str | None = None
    calibration_images: int = option(100, low=1, high=10_000)
    eval_data: str | None = None
    max_eval_images: int | None = option(None, low=1)
    max_ap_drop: float | None = option(None, low=0, high=1)
    max_output_error: float | None = option(None, low=0)
    per_tensor: bool = False
    quantization: str = option("int8", choices=QUANTIZATIONS)
    input_type: str | None = option(None, choices=INPUT_TYPES)
    postprocess: str = option("tflite", choices=POSTPROCESSING)
    nms: str = option(SHIPPED.nms, choices=NMS)
    score_threshold: float = option(SHIPPED.score_threshold, low=0, high=1)
    max_detections: int = option(SHIPPED.max_detections, low=1, high=1000)
    bundle: bool = False
    seed: int = option(0, low=0, high=2**32 - 1)

    def settings(self) -> "Settings":
        """Returns the settings of the export; loads TensorFlow after all checks.

        Raises:
          InputError: an option is out of range, contradicts another one or the training folder, or names
            a file that does not exist.
        """
        calibration, evaluation = self._files("calibration_data", "train"), self._files("eval_data", "val")
        source = trained_network.resolve(
            self.architecture,
            self.checkpoint_dir,
            self.num_classes,
            self.image_size,
            self.depth_multiplier,
            evaluation or calibration,
        )
        input_type = self.input_type or ("float" if self.quantization == "float" else "uint8")
        self._check(input_type, calibration, evaluation)
        if evaluation:
            trained_network.check_categories(source.labels, records.label_map_path(evaluation))
        files.check_output_dir(self.output_dir)

        from tflite_export.export import convert, exporter

        # A file without post-processing is evaluated with regular suppression, as in training.
        nms = self.nms if self.postprocess == "tflite" else "regular"
        suppression = Suppression(self.max_detections, score_threshold=self.score_threshold, nms=nms)
        return exporter.Settings(
            source=source,
            options=convert.Options(
                self.quantization, input_type, self.postprocess, suppression, self.per_tensor
            ),
            calibration_files=calibration,
            eval_files=evaluation,
            calibration_images=self.calibration_images,
            max_eval_images=self.max_eval_images,
            max_ap_drop=self.max_ap_drop,
            max_output_error=self.max_output_error,
            seed=self.seed,
            bundle=self.bundle,
        )

    def _files(self, name: str, split: str) -> tuple[str, ...]:
        pattern = getattr(self, name)
        return () if pattern is None else tuple(records.resolve(pattern, split))

    def _check(self, input_type: str, calibration: tuple[str, ...], evaluation: tuple[str, ...]) -> None:
        if self.quantization == "float" and input_type != "float":
            raise InputError(f"--input_type={input_type} with --quantization=float; allowed: float")
        if self.quantization == "float" and (self.per_tensor or self.max_output_error is not None):
            raise InputError(
                "--per_tensor and --max_output_error apply to int8 files, but --quantization is float"
            )
        if self.quantization == "qat" and not self.checkpoint_dir:
            raise InputError(
                "--quantization=qat requires --checkpoint_dir, the folder of a training with "
                "--quantization_aware"
            )
        if self.quantization == "qat" and self.per_tensor:
            raise InputError("--per_tensor with --quantization=qat, whose weights were trained per channel")
        if self.quantization != "float" and self.checkpoint_dir and not calibration:
            raise InputError(
                "--calibration_data is required: it determines the int8 ranges of a trained network"
            )
        if self.bundle and self.postprocess != "tflite":
            raise InputError(
                "--bundle requires --postprocess=tflite, because clients expect post-processing in the file"
            )
        if self.max_ap_drop is not None and not evaluation:
            raise InputError("--max_ap_drop requires --eval_data, on which AP is measured")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileOptions(Options):
    """Options of a check for an accelerator: the flags of `mobiledets-compile`.

    Attributes:
      model: a .tflite file from any source that is not compiled yet.
      target: `edgetpu`, `hexagon` or `ethos_u`.
      variant: the chip; None for the target's default.
      eval_data: real images on which the emulated chip is compared with LiteRT; only for `hexagon`.
      output_dir: folder for the compiled file; by default that of the model.
      labels: file of class names, which are written with metadata into a copy that is then compiled.
    """

    model: str
    target: str = option("edgetpu", choices=COMPILING)
    variant: str | None = None
    eval_data: str | None = None
    output_dir: str | None = None
    labels: str | None = None

    @property
    def folder(self) -> str:
        """Folder of the compiled file."""
        return self.output_dir or os.path.dirname(self.model) or "."

    def eval_files(self) -> list[str]:
        """Returns the TFRecord files of `eval_data`; empty if it is None.

        Raises:
          InputError: the target cannot be emulated, or there are no files.
        """
        if self.eval_data is None:
            return []
        if self.target != "hexagon":
            raise InputError(
                f"--eval_data with --target={self.target}; allowed: hexagon, the only target that can be "
                "emulated"
            )
        return records.resolve(self.eval_data, "val")
