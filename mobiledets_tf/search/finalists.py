"""The choice between candidates: each is trained alone for a while, by successive halving (arXiv 1502.07943).

What a network is worth with shared weights after a few hundred steps says little of what it is
worth alone. So each candidate is trained alone, on the search's own traced step and on the same
images as the others; after each rung the better half is trained further. Held-out images that
steered nothing judge. From fresh weights, drawn and trained as `mobiledets-train` does, the order
after 300 steps was nearly that after 1,200; from shared weights it was that of the search.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mobiledets_tf.compat import tf
from mobiledets_tf.detection import checkpoints
from mobiledets_tf.files import read_json, write_json
from mobiledets_tf.search.data import Batch, Stream
from mobiledets_tf.search.step import SharedStep

STATE = "finalists.json"
_RESAMPLES = 2000
# A training alone warms up over so many steps, and its rate falls to 0 over the last part of a rung.
_WARM_UP, _DECAY = 30, 0.25


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

    A known network that would have left stays besides.
    """
    counts = [finalists]
    while counts[-1] > 2:
        counts.append(math.ceil(counts[-1] / 2))
    return counts


class Halving:
    """Trains and compares networks alone; resumes after each training, and trains none twice.

    Args:
      shared: the supernet and its step; its weights are put back at the end.
      stream: training images.
      judge: held-out images.
      metric: see `SharedStep.quality`.
      rate: highest learning rate of a rung.
      steps: that each network is trained in a rung.
      start: returns the weights that a network starts from, by canonical name.
      folder: of its state and weights.
      after: called after each training; may raise to stop, the state is saved then.
    """

    def __init__(
        self, shared: SharedStep, stream: Stream, judge: Sequence[Batch], metric: str, rate: float,
        steps: int, start: Callable[[Finalist], dict[str, np.ndarray]], folder: str | Path,
        after: Callable[[], None],
    ):  # fmt: skip
        self._shared, self._stream, self._judge, self._metric = shared, stream, judge, metric
        self._rate, self._steps, self._start = rate, steps, start
        self._folder, self._after = Path(folder), after
        self._shared_rows = [bank.rows.read_value() for bank in shared.supernet.banks]
        self._done = self._load()

    def first_rung(self, finalists: Sequence[Finalist]) -> list[Finalist]:
        """Trains all as the first rung of `run` does, and fills in the same; returns them best first."""
        ranked = self._rung(list(finalists))
        self._put_back()
        return ranked

    def run(self, finalists: Sequence[Finalist]) -> list[Finalist]:
        """Compares; fills in `steps` and `judged`.

        Args:
          finalists: at least one; no network twice.

        Returns:
          All finalists, best first: those of the last rung by their score, then those of the rung before.
        """
        running, beaten = list(finalists), []
        last = len(rungs(len(finalists))) - 1
        for rung in range(last + 1):
            running = self._rung(running)
            kept = running if rung == last else _survivors(running)
            beaten = [f for f in running if f not in kept] + beaten
            running = kept
        self._put_back()
        return running + beaten

    def trainings(self, finalists: Sequence[Finalist]) -> int:
        """How many trainings there will be at least."""
        known = sum(self._key(finalist, self._steps) in self._done for finalist in finalists)
        return sum(rungs(len(finalists))) - known

    def weights(self, finalist: Finalist) -> dict[str, np.ndarray]:
        """The weights of a finalist after its own training, by canonical name, BN statistics left out."""
        path = self._path(finalist)
        if not _trained_steps(path):
            return self._shared.supernet.detector_weights(np.array(finalist.decisions, np.int32))
        return checkpoints.values(path)

    def _rung(self, running: list[Finalist]) -> list[Finalist]:
        images = functools.cache(functools.partial(self._images, running[0].steps))
        for finalist in running:
            wanted = finalist.steps + self._steps
            key = self._key(finalist, wanted)
            if key not in self._done:
                self._done[key] = self._train(finalist, images())
                self._save()
                self._after()
            finalist.steps, finalist.judged = wanted, tuple(self._done[key])
        return sorted(running, key=lambda f: -f.score)

    @staticmethod
    def _key(finalist: Finalist, steps: int) -> str:
        return f"{steps} {list(finalist.decisions)}"

    def _path(self, finalist: Finalist) -> Path:
        return self._folder / "-".join(map(str, finalist.decisions))

    def _images(self, first: int) -> list[Callable[[], Iterator[Batch]]]:
        """Returns the batches of a rung for each local replica; all finalists see the same images."""
        replicas, count = self._shared.replicas, self._shared.strategy.num_replicas_in_sync
        return [self._stream.recorded(first, self._steps, replica, count) for replica in replicas.local]

    def _train(
        self, finalist: Finalist, images: Sequence[Callable[[], Iterator[Batch]]]
    ) -> list[float]:
        """Trains one network from where it is for a rung; returns its quality on each batch."""
        shared, network = self._shared, np.array(finalist.decisions, np.int32)
        path, wanted = self._path(finalist), finalist.steps + self._steps
        self._put_back()
        # A run that was killed while it judged has trained already.
        trained = _trained_steps(path) == wanted
        is_new = finalist.steps == 0 and not trained
        shared.supernet.assign(network, self._start(finalist) if is_new else self.weights(finalist))
        if not trained:
            networks = np.stack([network] * len(images))
            for step, batches in enumerate(zip(*(mine() for mine in images), strict=True)):
                shared.train(batches, networks, self._rate * _trapezoid(step, self._steps))
            weights = shared.supernet.detector_weights(network)
            if shared.replicas.is_chief:
                variables = {name: tf.Variable(value) for name, value in weights.items()}
                checkpoints.save(variables, path, wanted)
        return shared.measure(self._judge, network[None], self._metric)[0].tolist()

    def _put_back(self) -> None:
        for bank, rows in zip(self._shared.supernet.banks, self._shared_rows, strict=True):
            bank.rows.assign(rows)
        for slot in self._shared.optimizer.slots:
            slot.assign(tf.zeros_like(slot))

    def _load(self) -> dict[str, list[float]]:
        path = self._folder / STATE
        done = read_json(path, "state of the finalists") if path.exists() else {}
        return {key: [float(value) for value in judged] for key, judged in done.items()}

    def _save(self) -> None:
        if self._shared.replicas.is_chief:
            plain = {key: [_plain(value) for value in judged] for key, judged in self._done.items()}
            write_json(self._folder / STATE, plain)


def _trapezoid(step: int, steps: int) -> float:
    """The share of the highest learning rate at a step of a rung: up, level, and down at the end."""
    return min(1.0, (step + 1) / _WARM_UP, (steps - step) / (_DECAY * steps))


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
