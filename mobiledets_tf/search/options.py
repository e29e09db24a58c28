"""Options of a search, with presets, and of a rank comparison; they are checked here without TensorFlow."""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mobiledets_tf import latency
from mobiledets_tf.distribution import StrategyOptions
from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.options import Options, option
from mobiledets_tf.search import presets
from mobiledets_tf.search.reward import QUALITIES, REWARDS
from mobiledets_tf.search.settings import ALGORITHMS, EXTRACTIONS, REGIONS, STARTS
from mobiledets_tf.search_space import SPACES, SearchSpace, get_space
from mobiledets_tf.weights import zoo

if TYPE_CHECKING:
    from mobiledets_tf.search.settings import Search

MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions(StrategyOptions):
    """Options of a search: the flags of `mobiledets-search`, which explains each with `--help`.

    Options that are None have the value of the preset. `settings.Search` describes how a search uses the
    values.

    Attributes:
      train_data: folder written by `mobiledets-data --mode=convert`, or a TFRecord pattern.
      model_dir: folder of the search; an interrupted search in it is resumed.
      latency_model: latency model of each device: a file or the name of a shipped model; a single one need
        not be in a list.
      latency_target: target cost on each device, in the unit of its latency model.
      search_space: one of `search_space.SPACES`.
      kernel_sizes: kernel sizes of the space.
      depth_multiplier: factor for all widths of the space.
      steer_by: device whose controller proposes networks; None lets the devices take turns.
      preset: one of `presets.PRESETS`.
      candidates: your own architecture files, to be treated as known networks.
      init_from: initial weights, as in `TrainOptions`; their network is treated as a known network.
      weights_cache: folder for downloaded weights.
      latency_band: allowed distance from the target, as a fraction of it.
      finalist_learning_rate: highest learning rate in the training of finalists.
      steps: number of search steps.
      image_size: side of the square input, in pixels; must be that of the latency models.
      quality: `loss`, `AP` or `AP50`.
      reward: `band`, `abs`, `mnas` or `mnas_hard`.
      beta: weight or exponent of the cost in the reward.
      learning_rate, controller_learning_rate: learning rates of the shared weights and of the policy.
      op_warmup_fraction, filter_warmup_fraction, rl_delay_fraction: duration of op warm-up, of filter warm-up
        and of the controller's delay, as fractions of the steps.
      measure_finalists: whether the final population is measured on the devices that can be reached.
      deterministic: whether TensorFlow uses deterministic operations; applies to the whole process.
    """

    train_data: str
    model_dir: str
    latency_model: str | Sequence[str]
    latency_target: float | Sequence[float]
    search_space: str = option("ibn_fused_tucker", choices=SPACES)
    kernel_sizes: Sequence[int] = (3, 5)
    depth_multiplier: float = 1.0
    steer_by: str | None = None
    preset: str = option("small", choices=presets.PRESETS)
    algorithm: str | None = option(None, choices=ALGORITHMS)
    region: str | None = option(None, choices=REGIONS)
    published: bool | None = None
    candidates: Sequence[str] = ()
    init_from: str | None = None
    weights_cache: str | None = None
    mutation_rate: float = option(0.15, low=0, high=1)
    population: int = option(16, low=2)
    children: int = option(16, low=1)
    rounds: int = option(4, low=1)
    latency_band: float = 0.03
    extraction: str | None = option(None, choices=EXTRACTIONS)
    finalists: int = option(4, low=1)
    finalist_generations: int = option(1, low=1)
    finalist_steps: int | None = option(None, low=0)
    finalist_start: str = option("fresh", choices=STARTS)
    finalist_learning_rate: float = option(0.1, low=0)
    steps: int | None = option(None, low=1)
    image_size: int = option(320, low=1)
    batch_size: int = option(16, low=1)
    rl_batch_multiplier: int | None = option(None, low=1)
    quality: str | None = option(None, choices=QUALITIES)
    quality_images: int | None = option(None, low=0)
    judge_images: int = option(256, low=1)
    reward: str | None = option(None, choices=REWARDS)
    beta: float = option(-0.1, high=0)
    learning_rate: float = option(0.1, low=0)
    controller_learning_rate: float | None = option(None, low=0)
    entropy_weight: float = option(0.0, low=0)
    op_warmup_fraction: float | None = None
    filter_warmup_fraction: float | None = None
    rl_delay_fraction: float | None = None
    path_dropout: float = 0.0
    weight_update: str = option("lazy", choices=("lazy", "dense"))
    execution: str = option("sliced", choices=("sliced", "masked"))
    measure_finalists: bool = True
    checkpoint_every: int = option(50, low=1)
    seed: int = option(0, low=0, high=MAX_SEED)
    deterministic: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latency_model", "latency_target", "candidates", "kernel_sizes"):
            value = getattr(self, name)
            several = (value,) if isinstance(value, (str, int, float)) else value
            texts = (os.fspath(item) if isinstance(item, os.PathLike) else item for item in several)
            object.__setattr__(self, name, tuple(texts))

    @property
    def targets(self) -> tuple[float, ...]:
        """The latency targets, one for each latency model."""
        given = self.latency_target
        return (given,) if isinstance(given, (int, float)) else tuple(given)

    def check(self) -> None:
        """Checks the options as far as possible without TensorFlow.

        Raises:
          InputError: an option is out of range, contradicts another one, or names a file that does not
            exist.
        """
        models, targets = self.latency_model, self.targets
        if len(models) != len(targets):
            raise InputError(
                f"--latency_model is given {len(models)} times, --latency_target {len(targets)} times: "
                "each device needs both"
            )
        for target in targets:
            if not target > 0:
                raise InputError(f"--latency_target={target}; allowed: numbers above 0")
        self.check_strategy()
        if self.init_from is not None:
            zoo.check_exists("init_from", self.init_from)
        if self.distribution_strategy == "tpu" and self.execution != "masked":
            raise InputError(
                "--distribution_strategy=tpu requires --execution=masked: TPUs require static shapes"
            )

    def space(self) -> SearchSpace:
        """Returns the search space."""
        return get_space(self.search_space, tuple(self.kernel_sizes), self.depth_multiplier)

    def latency_models(self) -> list[LatencyModel]:
        """Reads the latency models.

        Raises:
          InputError: a model cannot be read, or is for another space or image size.
        """
        space, models = self.space(), []
        for path in self.latency_model:
            model = latency.load(path)
            model.require_space(space)
            if model.image_size != (self.image_size, self.image_size):
                raise InputError(
                    f"--image_size={self.image_size}: the latency model is for "
                    f"{model.image_size[0]}x{model.image_size[1]}"
                )
            models.append(model)
        return models

    def with_preset(self) -> "SearchOptions":
        """Returns the same options, with the preset's values in place of those that are None."""
        preset = presets.get_preset(self.preset).items()
        chosen: dict[str, Any] = {name: value for name, value in preset if getattr(self, name) is None}
        return dataclasses.replace(self, **chosen)

    def settings(self, models: Sequence[LatencyModel]) -> "Search":
        """Returns the settings of the search; loads TensorFlow, and downloads weights if necessary.

        Args:
          models: the models that `latency_models` returned.

        Raises:
          InputError: settings contradict each other, or the initial weights cannot be read.
        """
        from mobiledets_tf.search import known, schedule, seeding, settings

        full: Any = self.with_preset()  # None of the options that a preset sets is None here.
        initial = None
        if self.init_from is not None:
            initial = seeding.read(zoo.local(self.init_from, self.weights_cache), models[0])
        same = {field.name for field in dataclasses.fields(settings.Search)} & set(vars(full))
        return settings.Search(
            **{name: getattr(full, name) for name in same - {"candidates"}},
            objectives=tuple(
                settings.Objective(model, target, full.reward, self.beta, self.latency_band)
                for model, target in zip(models, self.targets, strict=True)
            ),
            schedule=schedule.Schedule(
                steps=full.steps,
                op_warmup=full.op_warmup_fraction,
                filter_warmup=full.filter_warmup_fraction,
                rl_delay=full.rl_delay_fraction,
                controller_rate=full.controller_learning_rate,
                weight_rate=self.learning_rate,
            ),
            steered_by=self.steer_by,
            candidates=(*known.candidates(self.candidates), *seeding.candidates(initial)),
            finalist_rate=self.finalist_learning_rate,
            metric=full.quality,
            initial=initial,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankOptions(Options):
    """Options of a rank comparison: the flags of `mobiledets-rank`.

    Attributes:
      search_dir: folder of a search with saved weights.
      model_dir: folder for the training runs and the report.
      latency_model: latency model of the search's first device: a file or the name of a shipped model; not
        needed to resume.
      train_data: folder written by `mobiledets-data` to train each network on; None for the data of the
        search.
      draw: `region` or `space`; see `rank.policies`.
      networks: number of networks.
      seeds: number of stand-alone training runs per network.
      alone: quality measure after stand-alone training: `AP`, `AP50` or `loss`.
      steps, batch_size, learning_rate: settings of each training run.
      seed: random seed for drawing networks and for each network's first training run; its further runs use
        the next seeds.
    """

    search_dir: str
    model_dir: str
    latency_model: str | None = None
    train_data: str | None = None
    draw: str = option("region", choices=("region", "space"))
    networks: int = option(24, low=3)
    seeds: int = option(2, low=1)
    alone: str = option("AP", choices=("AP", "AP50", "loss"))
    steps: int = option(1000, low=1)
    batch_size: int = option(16, low=1)
    learning_rate: float = option(0.1, low=0)
    seed: int = option(0, low=0, high=MAX_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed + self.seeds - 1 > MAX_SEED:
            raise InputError(
                f"--seed={self.seed} with --seeds={self.seeds}: the largest allowed seed is {MAX_SEED}"
            )
