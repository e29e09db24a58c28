"""Settings that define a search."""

import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledets_tf import architecture as architectures
from mobiledets_tf.architecture import Architecture
from mobiledets_tf.errors import InputError, unknown_name
from mobiledets_tf.files import read_artefact, write_json
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.search.band import Band
from mobiledets_tf.search.reward import QUALITIES, REWARDS
from mobiledets_tf.search.schedule import Schedule
from mobiledets_tf.weights import trained_folder

if TYPE_CHECKING:  # This module imports TensorFlow, which settings do not need.
    from mobiledets_tf.weights.imported_weights import Account

# Schema version of search_report.json.
REPORT_VERSION = 3
ALGORITHMS = ("evolution", "tunas", "random")
EXTRACTIONS = ("argmax", "target")
REGIONS = ("known", "space")
STARTS = ("fresh", "shared")
# Fields of `Search` that `settings` writes in another form or that may change when a search is resumed.
_SEPARATE = ("model_dir", "objectives", "schedule", "candidates", "initial", "checkpoint_every")


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """The objective of a search on one device: its latency target and its reward.

    Attributes:
      latency: latency model that predicts the cost of a network on the device.
      target: target cost in the unit of the latency model.
      reward: one of `reward.REWARDS`.
      beta: weight or exponent of the cost in the reward, below 0.
      band: largest allowed distance from the target, as a fraction of the target.
    """

    latency: LatencyModel
    target: float
    reward: str = "band"
    beta: float = -0.1
    band: float = 0.03

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise unknown_name("reward", self.reward, REWARDS)
        if not self.target > 0:
            raise InputError(f"latency target is {self.target}; allowed: numbers above 0")
        if not 0 < self.band < 1:
            raise InputError(f"latency band is {self.band}; allowed: above 0 and below 1")

    @property
    def device(self) -> str:
        """Name made of device and variant; unique in a search."""
        return "_".join(part for part in (self.latency.device, self.latency.variant) if part)

    @property
    def in_band(self) -> bool:
        """Whether networks are drawn inside the band, so that the reward is their quality alone."""
        return self.reward == "band"

    @functools.cached_property
    def networks(self) -> Band:
        """The networks inside the band.

        Raises:
          InputError: no network of the space has a cost inside the band.
        """
        return Band(self.latency, self.target, self.band)

    def worth(self, quality: float, cost: float) -> float:
        """Returns the reward of a network.

        Args:
          quality: quality of the network, higher is better.
          cost: predicted cost in the unit of the latency model.

        Raises:
          InputError: the reward uses an exponent and the cost is 0 or less.
        """
        return REWARDS[self.reward](quality, cost, self.target, self.beta)


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """All settings of a search.

    Attributes:
      train_data: converted folder or TFRecord pattern.
      model_dir: folder that the search is written to.
      objectives: one per device; all latency models are for the same space, image size and head.
      schedule: schedule of the search; see `Schedule`.
      steered_by: the device whose agent proposes networks; with None every device has an agent, and
        they take turns. Every network is considered for the best networks and Pareto sets of all devices.
      algorithm: `evolution` of a population, `tunas`, or `random`, which learns nothing.
      region: `known` starts around known networks, `space` samples the whole space evenly.
      published: whether the published networks are among the known networks and the finalists.
      candidates: the user's own known networks.
      mutation_rate: probability that a mutation redraws a decision.
      population, children, rounds: for `evolution`: number of networks kept, number of new networks
        per round, and number of rounds.
      extraction: `argmax` selects the most probable option of each decision (TuNAS); `target` selects
        the most probable network inside the latency band.
      finalists: number of networks in each generation that are compared at the end by training each alone.
        The known networks are compared in addition.
      finalist_generations: number of generations of finalists. The search proposes the first; the networks
        of every further one are mutations and crossovers of the most promising so far.
      finalist_steps: training steps of each finalist. The best of all generations, as many as the first had,
        are then halved, with as many further steps each time. With 0, there is one generation, compared by
        shared weights alone. If the region is `known`, the known networks are trained in the same way before
        the search, which then searches around the best one.
      finalist_start: `fresh` trains finalists from the initial weights of `mobiledets-train`, `shared`
        from those of the supernet.
      finalist_rate: highest learning rate of the finalists' training.
      batch_size: training images per replica and step.
      rl_batch_multiplier: batch size for measuring quality, as a multiple of `batch_size` (TuNAS: 4).
      quality_images: number of held-out images on which quality is measured, the same for all networks;
        0 measures on the next batch (TuNAS).
      judge_images: number of separate held-out images on which finalists are compared.
      entropy_weight: weight of the entropy bonus, see `Controller`; TuNAS uses 0.
      path_dropout: probability of skipping a skippable layer while the shared weights are trained.
      metric: `loss`, `AP` or `AP50`; see `step.SharedStep.quality`.
      weight_update: `lazy` or `dense`; see `search.optimizer`.
      execution: `sliced` or `masked`; see `models.execution`.
      seed: seed of all random numbers.
      checkpoint_every: number of steps between saved states.
      initial: trained weights that initialise the shared weights (`search.seeding`); None starts from
        scratch.
    """

    train_data: str
    model_dir: str
    objectives: tuple[Objective, ...]
    schedule: Schedule
    steered_by: str | None = None
    algorithm: str = "evolution"
    region: str = "known"
    published: bool = True
    candidates: tuple[Architecture, ...] = ()
    mutation_rate: float = 0.15
    population: int = 16
    children: int = 16
    rounds: int = 4
    extraction: str = "target"
    finalists: int = 4
    finalist_generations: int = 1
    finalist_steps: int = 0
    finalist_start: str = "fresh"
    finalist_rate: float = 0.1
    batch_size: int = 16
    rl_batch_multiplier: int = 2
    quality_images: int = 128
    judge_images: int = 256
    entropy_weight: float = 0.0
    path_dropout: float = 0.0
    metric: str = "loss"
    weight_update: str = "lazy"
    execution: str = "sliced"
    seed: int = 0
    checkpoint_every: int = 50
    initial: "Account | None" = None

    def __post_init__(self) -> None:
        devices = [objective.device for objective in self.objectives]
        if len(set(devices)) < len(devices):
            raise InputError(
                f"the latency models are for devices {', '.join(devices)}; allowed: each device once"
            )
        if self.steered_by not in (None, *devices):
            raise unknown_name("device to steer by", str(self.steered_by), devices)
        for name, value, allowed in (
            ("algorithm", self.algorithm, ALGORITHMS),
            ("extraction", self.extraction, EXTRACTIONS),
            ("region", self.region, REGIONS),
            ("finalist_start", self.finalist_start, STARTS),
            ("quality", self.metric, QUALITIES),
        ):
            if value not in allowed:
                raise unknown_name(name, value, allowed)
        if not 0 <= self.path_dropout < 1:
            raise InputError(f"path dropout is {self.path_dropout}; allowed: from 0 to below 1")
        if not 0 < self.mutation_rate <= 1:
            raise InputError(f"mutation rate is {self.mutation_rate}; allowed: above 0 and at most 1")
        for name, low in (
            ("population", 2),
            ("children", 1),
            ("rounds", 1),
            ("finalists", 1),
            ("finalist_generations", 1),
        ):
            if getattr(self, name) < low:
                raise InputError(f"{name} is {getattr(self, name)}; allowed: {low} or more")
        if self.algorithm == "evolution" and not all(o.in_band for o in self.objectives):
            raise InputError("evolution draws networks inside the latency band; allowed reward: band")
        if self.algorithm == "evolution" and not self.quality_images:
            raise InputError(
                "quality_images is 0; allowed: 1 or more, because evolution compares all networks on the "
                "same images"
            )
        for objective in self.objectives[1:]:
            self._require_same(objective.latency)

    def _require_same(self, model: LatencyModel) -> None:
        model.require_space(self.latency.space)
        for field in ("image_size", "num_classes"):
            ours, theirs = getattr(self.latency, field), getattr(model, field)
            if ours != theirs:
                raise InputError(
                    f"latency models differ in {field}: {self.latency.title} {ours}, {model.title} {theirs}"
                )

    @property
    def latency(self) -> LatencyModel:
        """Latency model of the first device; space, image size and classes are the same in all models."""
        return self.objectives[0].latency

    @property
    def steering(self) -> tuple[Objective, ...]:
        """The objectives of the devices that propose networks, in the order of their turns."""
        return tuple(o for o in self.objectives if self.steered_by in (None, o.device))

    @property
    def needs_band(self) -> bool:
        """Whether the search needs networks inside the latency band at any time."""
        known = self.published or self.candidates
        drawn = self.algorithm == "random" or any(o.in_band for o in self.objectives)
        drawn = drawn or (self.finalist_steps > 0 and self.finalist_generations > 1)
        return bool(known) or drawn or self.extraction == "target"

    def settings(self) -> dict[str, Any]:
        """Returns the settings, JSON-ready, that must not change when a search is resumed."""
        first = self.latency
        return {
            "search_space": first.space.options() | {"hash": first.space.hash},
            "image_size": list(first.image_size),
            "num_classes": first.num_classes,
            # Applies to the network found and is read by training and export; its widths are final.
            "depth_multiplier": 1.0,
            "devices": [
                {
                    "device": o.device,
                    "latency_model": fingerprint(o.latency),
                    "latency_target": o.target,
                    "latency_band": o.band,
                    "reward": o.reward,
                    "beta": o.beta,
                }
                for o in self.objectives
            ],
            "candidates": [architectures.to_dict(network) for network in self.candidates],
            "initial": None if self.initial is None else _weights_fingerprint(self.initial),
            **{name: value for name, value in vars(self).items() if name not in _SEPARATE},
            **dataclasses.asdict(self.schedule),
        }


def keep(path: str | os.PathLike, settings: dict[str, Any], what: str) -> None:
    """Writes the settings of a run, or compares them with those in an existing file.

    Args:
      path: settings file.
      settings: JSON-ready settings.
      what: kind of the run, used in error messages.

    Raises:
      InputError: the settings differ; the message shows each difference.
    """
    path = Path(path)
    if not path.exists():
        write_json(path, {"schema_version": trained_folder.SETTINGS_VERSION} | settings)
        return
    before = read_artefact(path, f"settings of a {what}", trained_folder.SETTINGS_VERSION, absent=1)
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        shown = "; ".join(f"{key} was {before.get(key)!r}, is now {settings[key]!r}" for key in changed)
        raise InputError(f"{path.parent} contains a {what} with different settings: {shown}")


def _weights_fingerprint(account: "Account") -> str:
    """Returns a hash of 16 hex digits over names and values of weights."""
    digest = hashlib.sha256()
    for name, value in sorted(account.weights.items()):
        digest.update(name.encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]


def fingerprint(model: LatencyModel) -> str:
    """Returns a hash of 16 hex digits over everything that a latency model's predictions depend on."""
    digest = hashlib.sha256(f"{model.device} {model.kind} {model.unit} {model.intercept!r} ".encode())
    digest.update(model.coefficients.tobytes())
    return digest.hexdigest()[:16]
