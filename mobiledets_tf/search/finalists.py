"""Comparison of finalists by short stand-alone training runs and successive halving (arXiv 1502.07943).

The quality of a network with shared weights after a few hundred steps says little about its quality
after training alone. So each finalist is trained alone, with the search's own traced step and on the
same images as the others; after each rung the better half is trained further. The first rung, which may
also steer the search, is ranked on the images that steer it; later rungs, and so the result, on held-out
images that steered nothing. With fresh weights, initialised and trained as by
`mobiledets-train`, the order after 300 steps was nearly that after 1,200; when training started from
the shared weights, the order remained that of the search.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mobiledets_tf.compat import tf
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import read_json, write_json
from mobiledets_tf.search.input_pipeline import Batch, Stream
from mobiledets_tf.search.step import SharedStep
from mobiledets_tf.weights import checkpoints

STATE = "finalists.json"
_RESAMPLES = 2000
# Within a rung: number of warm-up steps, and fraction of the steps over which the rate falls to 0 at the end.
_WARM_UP, _DECAY = 30, 0.25

# Qualities of a network after a rung, on the steering and on the judging batches.
Qualities = tuple[tuple[float, ...], tuple[float, ...]]


@dataclasses.dataclass
class Finalist:
    """A network that is compared at the end of a search.

    Attributes:
      decisions: decision vector of the network.
      source: origin of the network: `population`, `policy`, `argmax`, `published edgetpu`, ...
      quality: quality with shared weights on the images that steered the search.
      steps: number of steps for which it was trained alone.
      steered: quality on each batch of the steering images after the first rung; higher is better.
      judged: quality on each batch of the judging images after `steps` steps.
      measured: cost measured on the device, in the latency model's unit; None if it was not measured.
      failed: reason why the measurement failed, or None.
    """

    decisions: tuple[int, ...]
    source: str
    quality: float = math.nan
    steps: int = 0
    steered: tuple[float, ...] = ()
    judged: tuple[float, ...] = ()
    measured: float | None = None
    failed: str | None = None

    @property
    def promise(self) -> float:
        """Mean of `steered` over the batches that contain boxes."""
        return _mean(self.steered)

    @property
    def score(self) -> float:
        """Mean of `judged` over the batches that contain boxes."""
        return _mean(self.judged)

    @property
    def is_known(self) -> bool:
        """Whether the network was known before the search."""
        return self.source.startswith(("published", "candidate"))


def rungs(finalists: int) -> list[int]:
    """Returns the minimum number of networks in each rung; the last rung has two, or one if there is one.

    The best known network is kept in addition if it would have been eliminated.
    """
    counts = [finalists]
    while counts[-1] > 2:
        counts.append(math.ceil(counts[-1] / 2))
    return counts


class Halving:
    """Trains networks alone and compares them; a resumed comparison repeats no finished training run.

    Args:
      shared: the supernet with its training step; the shared weights are restored at the end.
      stream: stream of training images.
      steer: batches of the held-out images that steer the search.
      judge: batches of other held-out images.
      metric: as in `SharedStep.quality`.
      rate: highest learning rate of a rung.
      steps: number of steps for which each network is trained in a rung.
      start: returns the initial weights of a network by canonical name.
      folder: folder of the comparison's state and of the trained weights.
      after: called after each training, when the state has been saved; it may raise to stop.
    """

    def __init__(
        self,
        shared: SharedStep,
        stream: Stream,
        steer: Sequence[Batch],
        judge: Sequence[Batch],
        metric: str,
        rate: float,
        steps: int,
        start: Callable[[Finalist], dict[str, np.ndarray]],
        folder: str | Path,
        after: Callable[[], None],
    ):
        self._shared, self._stream, self._metric = shared, stream, metric
        self._steer, self._judge = steer, judge
        self._rate, self._steps, self._start = rate, steps, start
        self._folder, self._after = Path(folder), after
        self._shared_rows = [bank.rows.read_value() for bank in shared.supernet.banks]
        self._done = self._load()

    def first_rung(self, finalists: Sequence[Finalist]) -> list[Finalist]:
        """Trains new networks for one rung; sets `steps`, `steered` and `judged`.

        Args:
          finalists: networks that have not been trained; none may occur twice.

        Returns:
          The networks, the most promising first.
        """
        self._rung(finalists)
        return sorted(finalists, key=lambda f: -f.promise)

    def halve(self, ranked: Sequence[Finalist]) -> list[Finalist]:
        """Trains the better half further, then the better half of those, until two networks are left.

        The best known network is never eliminated, so that it is trained for as long as the winner.

        Args:
          ranked: networks after the first rung, best first; at least one.

        Returns:
          All networks, best first: those of the last rung by their score, then those eliminated in the rung
          before, and so on.
        """
        running = list(ranked)
        beaten: list[Finalist] = []
        for _ in rungs(len(ranked))[1:]:
            kept = _survivors(running)
            beaten = [f for f in running if f not in kept] + beaten
            self._rung(kept)
            running = sorted(kept, key=lambda f: -f.score)
        return sorted(running, key=lambda f: -f.score) + beaten

    def to_train(self, finalists: Sequence[Finalist]) -> int:
        """Returns how many networks of a rung remain to be trained."""
        return sum(self._key(f, f.steps + self._steps) not in self._done for f in finalists)

    def weights(self, finalist: Finalist) -> dict[str, np.ndarray]:
        """Returns the weights of a finalist by canonical name, without BN statistics.

        They are those after its stand-alone training or, without one, the shared weights.
        """
        path = self._path(finalist)
        if not _trained_steps(path):
            return self._shared.supernet.detector_weights(np.array(finalist.decisions, np.int32))
        return checkpoints.values(path)

    def _rung(self, running: Sequence[Finalist]) -> None:
        images = functools.cache(functools.partial(self._images, running[0].steps if running else 0))
        for finalist in running:
            wanted = finalist.steps + self._steps
            key = self._key(finalist, wanted)
            if key not in self._done:
                self._done[key] = self._train(finalist, images())
                self._save()
                self._after()
            finalist.steered = finalist.steered or self._done[key][0]
            finalist.steps, finalist.judged = wanted, self._done[key][1]
        self._put_back()

    @staticmethod
    def _key(finalist: Finalist, steps: int) -> str:
        return f"{steps} {list(finalist.decisions)}"

    def _path(self, finalist: Finalist) -> Path:
        return self._folder / "-".join(map(str, finalist.decisions))

    def _images(self, first: int) -> list[Callable[[], Iterator[Batch]]]:
        """Returns the batches of a rung for each local replica; they are the same for all finalists."""
        replicas, count = self._shared.replicas, self._shared.strategy.num_replicas_in_sync
        return [self._stream.recorded(first, self._steps, replica, count) for replica in replicas.local]

    def _train(self, finalist: Finalist, images: Sequence[Callable[[], Iterator[Batch]]]) -> Qualities:
        """Trains one network for one more rung and measures its qualities."""
        shared, network = self._shared, np.array(finalist.decisions, np.int32)
        path, wanted = self._path(finalist), finalist.steps + self._steps
        self._put_back()
        # A run that was killed during evaluation has already completed the training.
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
        # Steering ends with the first rung.
        steered = () if finalist.steps else self._measure(self._steer, network)
        return steered, self._measure(self._judge, network)

    def _measure(self, batches: Sequence[Batch], network: np.ndarray) -> tuple[float, ...]:
        return tuple(self._shared.measure(batches, network[None], self._metric)[0].tolist())

    def _put_back(self) -> None:
        for bank, rows in zip(self._shared.supernet.banks, self._shared_rows, strict=True):
            bank.rows.assign(rows)
        for slot in self._shared.optimizer.slots:
            slot.assign(tf.zeros_like(slot))

    def _load(self) -> dict[str, Qualities]:
        path = self._folder / STATE
        done = read_json(path, "state of the finalists") if path.exists() else {}
        try:
            return {
                key: (_numbers(qualities["steered"]), _numbers(qualities["judged"]))
                for key, qualities in done.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"state of the finalists {str(path)!r} is malformed ({error!r}); delete the file to compare "
                "the finalists again"
            ) from error

    def _save(self) -> None:
        if self._shared.replicas.is_chief:
            plain = {
                key: {"steered": [*map(_plain, steered)], "judged": [*map(_plain, judged)]}
                for key, (steered, judged) in self._done.items()
            }
            write_json(self._folder / STATE, plain)


def _trapezoid(step: int, steps: int) -> float:
    """Returns the learning rate at a step of a rung as a fraction of the highest: up, level, then down."""
    return min(1.0, (step + 1) / _WARM_UP, (steps - step) / (_DECAY * steps))


def _trained_steps(path: Path) -> int:
    """Returns the step of the checkpoint in a finalist's folder; 0 if there is no complete checkpoint."""
    return checkpoints.step(path) if checkpoints.kept(path) else 0


def _survivors(ranked: Sequence[Finalist]) -> list[Finalist]:
    """Returns the better half and the best known network, so that it is trained for as long as the winner."""
    kept = list(ranked[: math.ceil(len(ranked) / 2)])
    known = next((f for f in ranked if f.is_known), None)
    return kept if known is None or known in kept else [*kept, known]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else -math.inf


def _numbers(values: Sequence[float | str]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _plain(value: float) -> float | str:
    """Returns a non-finite value as a string, because JSON cannot represent it."""
    return value if math.isfinite(value) else str(value)


def certainty(first: Finalist, second: Finalist) -> float | None:
    """Returns how certain it is that the first finalist is better than the second, from 0 to 1.

    The value is the fraction of bootstrap samples of the judging batches in which the first is better. It
    covers only the choice of images; another training of the same networks would differ as well. None if
    fewer than two batches can be compared.
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
