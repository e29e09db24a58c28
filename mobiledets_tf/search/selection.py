"""Selection of the network that a search returns: shortlist, cost on the device, stand-alone comparison.

The known networks are compared before the search, which starts around the best of them. After the search,
its best networks are the first generation of finalists; those of every further generation are mutations and
crossovers of the most promising networks so far. As many of the best of all generations as the first had,
with the known networks, then go through successive halving.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mobiledets_tf import architecture as architectures
from mobiledets_tf.compat import quiet, tf
from mobiledets_tf.detection import meta_architecture
from mobiledets_tf.detection.network_settings import NetworkSettings
from mobiledets_tf.interrupts import StopRequest
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.search import inheritance, proposals
from mobiledets_tf.search.agent import Agent
from mobiledets_tf.search.archive import Archive
from mobiledets_tf.search.finalists import Finalist, Halving, rungs
from mobiledets_tf.search.input_pipeline import Batch, Stream
from mobiledets_tf.search.known import Known, known_networks
from mobiledets_tf.search.settings import Objective, Search
from mobiledets_tf.search.step import SharedStep, mean_quality, set_seed
from mobiledets_tf.search_space import decode
from mobiledets_tf.weights import fitting, imported_weights

# Random seed of the networks that are drawn at the end; its only requirement is that no step uses it.
_AFTER = 1 << 40
# Number of networks that a generation of finalists descends from, and of draws per network of a generation.
_PARENTS, _DRAWS = 2, 4

# Measures networks on the device of a latency model: returns for each network its cost in the model's unit
# or the reason why it could not be measured.
DeviceTimes = Callable[[LatencyModel, Sequence[np.ndarray]], "list[float | str] | None"]


class Selection:
    """Compares the networks that a search proposes, and the known networks, and selects one per device.

    Args:
      search: settings of the search.
      shared: the supernet with its training step.
      settings: network settings, from which stand-alone networks are built.
      stream: training images on which networks are trained alone.
      judge: batches of held-out images on which networks are compared after that training.
      steer: batches of the held-out images that steered the search.
      times: measures networks on their device if it can be reached; None measures nothing.

    Attributes:
      known: the known networks of each device.
      populations: the networks from which the finalists of each device were chosen, measured where possible.
    """

    def __init__(
        self,
        search: Search,
        shared: SharedStep,
        settings: NetworkSettings,
        stream: Stream,
        judge: Sequence[Batch],
        steer: Sequence[Batch],
        times: DeviceTimes | None,
    ):
        self.search, self.shared, self._network_settings = search, shared, settings
        self._stream, self._judge, self._steer, self._times = stream, judge, steer, times
        self._main = shared.replicas.is_chief
        self.known = {objective.device: self._find_known(objective) for objective in search.objectives}
        self.populations: dict[str, list[Finalist]] = {}

    def _find_known(self, objective: Objective) -> list[Known]:
        search = self.search
        if not (search.candidates or search.published):
            return []
        return known_networks(objective.networks, search.candidates, search.published)

    def centres(self, objective: Objective) -> list[Known]:
        """Returns the known networks to search around: only the best one if they are compared first."""
        known = self.known[objective.device]
        if not self.search.finalist_steps or self.search.region != "known" or len(known) < 2:
            return known
        named = {one.decisions: one for one in known}
        finalists = [Finalist(one.decisions, _source(one.name, None)) for one in known]
        return [named[self._first_rung("known networks", finalists)[0].decisions]]

    def norm_images(self) -> list[tf.Tensor]:
        """Returns the training batches that BN statistics are measured on."""
        return [batch.images for batch in itertools.islice(self._stream.batches(0), inheritance.BATCHES)]

    def finalists(self, objective: Objective, agents: Sequence[Agent], archive: Archive) -> list[Finalist]:
        """Returns the ranked finalists of a device; the first one is selected.

        Args:
          objective: the objective on the device.
          agents: the agents of the steering devices, which need not include this device.
          archive: the device's archive.
        """
        search, rng = self.search, np.random.default_rng((self.search.seed, _AFTER))
        agent = next((agent for agent in agents if agent.objective.device == objective.device), None)
        named = {known.decisions: known.name for known in self.known[objective.device]}
        # Known networks may be among the best, and do not take the places of others.
        count = search.finalists + len(named)
        if self._is_timed(objective):
            count = max(count, search.population)
        ranked = agent.best(rng, count) if agent else []
        rows = [(tuple(network.tolist()), source) for network, source in ranked]
        rows += [(c.decisions, "best") for c in archive.best]
        if not rows:
            rows = [(tuple(agents[0].propose(rng, 1)[0].tolist()), "drawn")]
        sources = dict(reversed(rows))
        others = [decisions for decisions in dict.fromkeys(d for d, _ in rows) if decisions not in named]
        found = self._shortlist(
            objective,
            [Finalist(d, _source(name, sources.get(d))) for d, name in named.items()],
            [Finalist(d, _source(None, sources[d])) for d in others],
        )
        self._measure(found)
        inside = [f for f in found if self._is_inside(objective, f)] or found
        outside = [f for f in found if f not in inside]
        if search.finalist_steps:
            return self._compare(objective, inside) + outside
        if search.extraction == "argmax" and search.algorithm == "tunas":
            # As in the released TuNAS code: the policy's most probable network, whatever its quality.
            return sorted(found, key=lambda f: f.source != "argmax")
        return sorted(inside, key=lambda f: -_worth(objective, f)) + outside

    def _is_timed(self, objective: Objective) -> bool:
        """Returns whether the whole final population is measured on the device, not only the finalists.

        The released TuNAS code takes the likeliest network whatever its cost, so it needs no choice.
        """
        is_countable = objective.latency.kind == "exact"
        return self._times is not None and not is_countable and self.search.extraction == "target"

    def _shortlist(
        self, objective: Objective, known: list[Finalist], others: list[Finalist]
    ) -> list[Finalist]:
        """Returns the known networks and the best others; measures them if the device can be reached.

        Where the whole population is measured, networks inside the latency band by their measured cost
        come first: a model that is wrong by more than the band would otherwise leave few to compare.
        """
        room = self.search.finalists
        is_timed = self._is_timed(objective)
        population = known + (others if is_timed else others[:room])
        self._time(objective, population)
        self.populations[objective.device] = population
        if is_timed:
            others = sorted(others, key=lambda f: not self._is_inside(objective, f))
        return known + others[:room]

    def _measure(self, finalists: Sequence[Finalist]) -> None:
        """Measures the quality of networks with shared weights."""
        networks = np.array([finalist.decisions for finalist in finalists], np.int32)
        qualities = mean_quality(self.shared.measure(self._steer, networks, self.search.metric))
        for finalist, quality in zip(finalists, qualities, strict=True):
            finalist.quality = float(quality)

    def _compare(self, objective: Objective, finalists: list[Finalist]) -> list[Finalist]:
        """Returns the networks of all generations of finalists, best first."""
        last = self.search.finalist_generations
        pool = self._first_rung("finalists" if last == 1 else f"finalists, generation 1 of {last}", finalists)
        for number in range(2, last + 1):
            found = self._generation(objective, pool, number)
            pool += self._first_rung(f"finalists, generation {number} of {last}", found)
            pool.sort(key=lambda f: -f.promise)
        best = pool[: len(finalists)]
        known = next((f for f in pool if f.is_known), None)
        if known is not None and known not in best:
            best.append(known)
        with self._comparing("best finalists", sum(rungs(len(best))[1:])) as after:
            ranked = self._halving(after).halve(best)
        return ranked + [f for f in pool if f not in best]

    def _first_rung(self, what: str, finalists: list[Finalist]) -> list[Finalist]:
        with self._comparing(what, self._halving().to_train(finalists)) as after:
            return self._halving(after).first_rung(finalists)

    def _generation(self, objective: Objective, pool: Sequence[Finalist], number: int) -> list[Finalist]:
        """Returns new mutations and crossovers of the most promising networks, inside the latency band.

        More networks are drawn than are needed; those with the worst quality by shared weights are dropped.

        Args:
          objective: the objective on the device.
          pool: the networks of earlier generations, the most promising first.
          number: number of the generation, from 2.
        """
        search, rng = self.search, np.random.default_rng((self.search.seed, _AFTER, number))
        parents = [finalist.decisions for finalist in pool[:_PARENTS]]
        known = {finalist.decisions for finalist in pool}
        drawn: dict[tuple[int, ...], Finalist] = {}
        for _ in range(_DRAWS * search.finalists):
            child = proposals.child(search.latency.space, parents, search.mutation_rate, rng)
            decisions = tuple(objective.networks.sample(child, rng, 1)[0].tolist())
            if decisions not in known:
                drawn[decisions] = Finalist(decisions, f"generation {number}")
        ranked = list(drawn.values())
        if ranked:
            self._measure(ranked)
            ranked.sort(key=lambda f: -f.quality)
        found: list[Finalist] = []
        for finalist in ranked:
            if len(found) == search.finalists:
                break
            self._time(objective, [finalist])
            self.populations[objective.device].append(finalist)
            if self._is_inside(objective, finalist):
                found.append(finalist)
        return found

    @contextlib.contextmanager
    def _comparing(self, what: str, trainings: int) -> Iterator[Callable[[], None]]:
        """Shows a progress bar over stand-alone training runs.

        Yields:
          A function to call after each training; it raises KeyboardInterrupt if a stop was requested.
        """
        bar = tqdm(desc=what, unit="run", total=trainings, leave=False, disable=not self._main)
        with StopRequest() as stop, quiet(), bar:

            def after() -> None:
                bar.update()
                if self.shared.replicas.any_worker(stop.requested):
                    raise KeyboardInterrupt

            yield after

    def _halving(self, after: Callable[[], None] = lambda: None) -> Halving:
        search = self.search
        start = self._fresh_weights if search.finalist_start == "fresh" else self._shared_weights
        return Halving(
            self.shared,
            self._stream,
            self._steer,
            self._judge,
            search.metric,
            search.finalist_rate,
            search.finalist_steps,
            start,
            Path(search.model_dir) / "finalists",
            after,
        )

    def weights(self, finalist: Finalist) -> dict[str, np.ndarray]:
        """Returns the weights of a finalist by canonical name, as `Halving.weights` does."""
        return self._halving().weights(finalist)

    def _fresh_weights(self, finalist: Finalist) -> dict[str, np.ndarray]:
        """Returns the weights that `mobiledets-train` would start from; every network uses the same seed."""
        set_seed(self.search.seed)
        network = decode(self.search.latency.space, finalist.decisions)
        settings = dataclasses.replace(self._network_settings, architecture=network)
        weights = meta_architecture.initial_weights(settings)
        if self.search.initial is not None:
            target = imported_weights.Target(network, settings.num_classes, settings.image_size)
            build = functools.partial(meta_architecture.build_network, settings)
            account = fitting.fit(self.search.initial, target, self.norm_images(), build, self.search.seed)
            set_seed(self.search.seed)
            weights |= {name.removesuffix(":0"): value for name, value in account.weights.items()}
        return weights

    def _shared_weights(self, finalist: Finalist) -> dict[str, np.ndarray]:
        return self.shared.supernet.detector_weights(np.array(finalist.decisions, np.int32))

    def _time(self, objective: Objective, finalists: list[Finalist]) -> None:
        """Adds measured costs to networks if the device can be reached."""
        if self._times is None:
            return
        # All None on workers other than the chief, which measures, or if the device cannot be reached.
        values: Sequence[float | str | None] = [None] * len(finalists)
        if self._main:
            networks = [np.array(finalist.decisions) for finalist in finalists]
            values = self._times(objective.latency, networks) or values
        numbers = [value if isinstance(value, float) else np.nan for value in values]
        for finalist, value, number in zip(
            finalists, values, self.shared.replicas.from_chief(numbers), strict=True
        ):
            finalist.measured = None if np.isnan(number) else float(number)
            finalist.failed = value if isinstance(value, str) else None

    def _is_inside(self, objective: Objective, finalist: Finalist) -> bool:
        """Returns whether a finalist is inside the latency band, by its measured cost if there is one."""
        cost = finalist.measured or objective.latency.predict_one(finalist.decisions)
        return abs(cost / objective.target - 1) <= objective.band


def _worth(objective: Objective, finalist: Finalist) -> float:
    if not np.isfinite(finalist.quality):
        return -np.inf
    return objective.worth(finalist.quality, objective.latency.predict_one(finalist.decisions))


def _source(known: str | None, source: str | None) -> str:
    """Returns the source of a finalist; a known network keeps its name even if the search also drew it."""
    if known is not None:
        return f"published {known}" if known in architectures.PUBLISHED else f"candidate {known}"
    return source or "best"
