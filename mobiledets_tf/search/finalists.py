"""The final choice: candidates trained alone for a while, by successive halving (arXiv 1502.07943).

What a network is worth with shared weights after a few hundred steps says little of what it is
worth alone. So each candidate goes on alone from the shared weights, on the search's own traced
step; after each rung the better half goes on. Held-out images that steered nothing judge.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf.compat import tf
from mobiledets_tf.detection import checkpoints
from mobiledets_tf.files import read_json, write_json
from mobiledets_tf.search.data import Batch, Stream
from mobiledets_tf.search.step import SharedStep

STATE = "finalists.json"
_RESAMPLES = 2000


@dataclasses.dataclass
class Finalist:
    """A network that is compared at the end.

    Attributes:
      decisions: the network.
      source: where it comes from: `population`, `policy`, `argmax`, `published edgetpu`, ...
      quality: with shared weights, on the images that steered the search.
      steps: that it was trained alone.
      judged: on each batch of the judging images, the higher the better; after those steps.
      measured: cost measured on the device, in the unit of the model; None where that is not possible.
      failed: why it could not be measured.
    """

    decisions: tuple[int, ...]
    source: str
    quality: float = math.nan
    steps: int = 0
    judged: tuple[float, ...] = ()
    measured: float | None = None
    failed: str | None = None

    @property
    def score(self) -> float:
        """Mean of `judged`, batches without boxes left out."""
        values = [value for value in self.judged if not math.isnan(value)]
        return float(np.mean(values)) if values else -math.inf

    @property
    def is_known(self) -> bool:
        """Whether one could have taken it without a search."""
        return self.source.startswith(("published", "candidate"))


def rungs(finalists: int) -> list[int]:
    """How many networks each rung has at least; the last one has two, or one where there is one.

    A known network that would have left goes on besides. Each rung gets an equal part of the steps.
    """
    counts = [finalists]
    while counts[-1] > 2:
        counts.append(math.ceil(counts[-1] / 2))
    return counts


class Halving:
    """Trains and compares the finalists of one device; resumes after each training.

    Args:
      shared: the supernet and its step; its weights are put back at the end.
      stream: training images.
      judge: held-out images.
      metric: see `SharedStep.quality`.
      rate: learning rate; falls to 0 in every rung by a cosine.
      folder: of its state and weights.
    """

    def __init__(
        self, shared: SharedStep, stream: Stream, judge: Sequence[Batch], metric: str, rate: float,
        folder: str | Path,
    ):  # fmt: skip
        self._shared, self._stream, self._judge = shared, stream, judge
        self._metric, self._rate, self._folder = metric, rate, Path(folder)
        self._start = [bank.rows.read_value() for bank in shared.supernet.banks]

    def run(self, finalists: list[Finalist], steps: int, after: Callable[[], None]) -> list[Finalist]:
        """Compares; fills in `steps` and `judged`.

        Args:
          finalists: at least one; no network twice.
          steps: of training, in all; each network gets one step in each of its rungs at least.
          after: called after each training; may raise to stop, the state is saved then.

        Returns:
          All finalists, best first: those of the last rung by their score, then those of the rung before.
        """
        done = self._load()
        running, beaten = list(finalists), []
        last = len(rungs(len(finalists))) - 1
        for rung in range(last + 1):
            more = max(1, steps // ((last + 1) * len(running)))
            images = functools.cache(functools.partial(self._images, running[0].steps, more))
            for finalist in running:
                key = f"{rung} {list(finalist.decisions)}"
                if key not in done:
                    judged = self._train(finalist, more, images())
                    done[key] = {"steps": finalist.steps + more, "judged": judged}
                    self._save(done)
                    after()
                finalist.steps = done[key]["steps"]
                finalist.judged = tuple(done[key]["judged"])
            running.sort(key=lambda f: -f.score)
            kept = running if rung == last else _survivors(running)
            beaten = [f for f in running if f not in kept] + beaten
            running = kept
        self._put_back()
        return running + beaten

    @staticmethod
    def trainings(finalists: Sequence[Finalist]) -> int:
        """How many trainings there will be at least."""
        return sum(rungs(len(finalists)))

    def weights(self, finalist: Finalist) -> dict[str, np.ndarray]:
        """The weights of a finalist after its own training, by canonical name, BN statistics left out."""
        path = self._path(finalist)
        if not _trained_steps(path):
            return self._shared.supernet.detector_weights(np.array(finalist.decisions, np.int32))
        return checkpoints.values(path)

    def _path(self, finalist: Finalist) -> Path:
        return self._folder / "-".join(map(str, finalist.decisions))

    def _images(self, first: int, steps: int) -> list[Callable[[], Iterator[Batch]]]:
        """Returns the batches of a rung for each local replica; all finalists see the same images."""
        replicas, count = self._shared.replicas, self._shared.strategy.num_replicas_in_sync
        return [self._stream.recorded(first, steps, replica, count) for replica in replicas.local]

    def _train(
        self, finalist: Finalist, steps: int, images: Sequence[Callable[[], Iterator[Batch]]]
    ) -> list[float]:
        """Trains one network from where it is; returns its quality on each batch."""
        shared, network = self._shared, np.array(finalist.decisions, np.int32)
        path, wanted = self._path(finalist), finalist.steps + steps
        self._put_back()
        shared.supernet.assign(network, self.weights(finalist))
        # A run that was killed while it judged has trained already.
        if _trained_steps(path) != wanted:
            networks = np.stack([network] * len(images))
            for step, batches in enumerate(zip(*(mine() for mine in images), strict=True)):
                shared.train(batches, networks, self._rate * 0.5 * (1 + math.cos(math.pi * step / steps)))
            weights = shared.supernet.detector_weights(network)
            if shared.replicas.is_chief:
                variables = {name: tf.Variable(value) for name, value in weights.items()}
                checkpoints.save(variables, path, wanted)
        return shared.measure(self._judge, network[None], self._metric)[0].tolist()

    def _put_back(self) -> None:
        for bank, rows in zip(self._shared.supernet.banks, self._start, strict=True):
            bank.rows.assign(rows)
        for slot in self._shared.optimizer.slots:
            slot.assign(tf.zeros_like(slot))

    def _load(self) -> dict[str, Any]:
        path = self._folder / STATE
        done = read_json(path, "state of the finalists") if path.exists() else {}
        return {key: row | {"judged": [float(v) for v in row["judged"]]} for key, row in done.items()}

    def _save(self, done: dict[str, Any]) -> None:
        if self._shared.replicas.is_chief:
            plain = {key: row | {"judged": [_plain(v) for v in row["judged"]]} for key, row in done.items()}
            write_json(self._folder / STATE, plain)


def _trained_steps(path: Path) -> int:
    """Steps of the checkpoint in a finalist's folder; 0 without one, also where a kill left a part of it."""
    return checkpoints.step(path) if checkpoints.kept(path) else 0


def _survivors(ranked: list[Finalist]) -> list[Finalist]:
    """The better half, and the best known network, so that it and what was found are compared alike."""
    kept = ranked[: math.ceil(len(ranked) / 2)]
    known = next((f for f in ranked if f.is_known), None)
    return kept if known is None or known in kept else [*kept, known]


def _plain(value: float) -> float | str:
    """JSON has no such numbers."""
    return value if math.isfinite(value) else str(value)


def certainty(first: Finalist, second: Finalist) -> float | None:
    """How sure it is that one finalist is better than another, from 0 to 1.

    The share of bootstrap samples of the judging batches in which it is. That is about images alone:
    another training of the same networks differs too.
    """
    pairs = np.array([first.judged, second.judged], np.float64)
    if pairs.shape[1] < 2:
        return None
    gains = pairs[0] - pairs[1]
    gains = gains[np.isfinite(gains)]
    if len(gains) < 2:
        return None
    rng = np.random.default_rng(0)
    means = gains[rng.integers(len(gains), size=(_RESAMPLES, len(gains)))].mean(axis=1)
    return float((means > 0).mean())
