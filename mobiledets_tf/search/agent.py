"""Agents, which propose networks for a device and learn from their quality."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mobiledets_tf.search import proposals
from mobiledets_tf.search.controller import Controller, relative_entropy
from mobiledets_tf.search.known import Known
from mobiledets_tf.search.proposals import Probabilities
from mobiledets_tf.search.reward import DebiasedAverage
from mobiledets_tf.search.settings import Objective, Search

# int32 [networks, decisions] -> their qualities with the shared weights, float64 [networks].
Measure = Callable[[np.ndarray], np.ndarray]


class Agent:
    """Base class of the agents; each proposes networks for one device.

    Args:
      search: settings of the search.
      objective: objective on the device.
      centres: known networks to search around.
    """

    def __init__(self, search: Search, objective: Objective, centres: Sequence[Known]):
        self._search = search
        self.objective = objective
        self.centres = list(centres)

    def propose(self, rng: np.random.Generator, networks: int) -> np.ndarray:
        """Returns the networks on which the shared weights are trained next; int32 [networks, decisions]."""
        raise NotImplementedError

    def measures_at(self, step: int) -> bool:
        """Returns whether `learn` should be called after a step, counted from 0."""
        raise NotImplementedError

    def learn(
        self, step: int, trained: np.ndarray, costs: np.ndarray, measure: Measure, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Measures networks and learns from their qualities.

        Args:
          step: number of the step, counted from 0.
          trained: the networks that `propose` returned, int32 [networks, decisions].
          costs: their predicted costs on the agent's device, float64 [networks].
          measure: function that measures qualities.
          rng: random number generator.

        Returns:
          (the measured networks int32 [networks, decisions], their qualities float64 [networks]); the
          networks are `trained` itself if nothing else was measured.
        """
        raise NotImplementedError

    def best(self, rng: np.random.Generator, networks: int) -> list[tuple[np.ndarray, str]]:
        """Returns the networks to compare at the end, best first, as (int32 [decisions], source)."""
        raise NotImplementedError

    def probabilities(self) -> Probabilities:
        """Returns the distribution that networks are drawn from, before it is restricted to the band."""
        raise NotImplementedError

    def entropy(self) -> float:
        """Returns the `relative_entropy` of the distribution that networks are drawn from."""
        return relative_entropy(self.probabilities())

    def start(self) -> Probabilities:
        """Returns the initial distribution: mutations of the known networks, or the whole space."""
        space, search = self._search.latency.space, self._search
        if search.region == "space" or not self.centres:
            return proposals.even(space)
        return proposals.mixed(
            [proposals.around(space, centre.decisions, search.mutation_rate) for centre in self.centres]
        )

    def _draw(self, probabilities: Probabilities, rng: np.random.Generator, networks: int) -> np.ndarray:
        return self.objective.networks.sample(probabilities, rng, networks)

    def state(self) -> dict[str, Any]:
        """Returns a JSON-ready copy of everything that changes during a search."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state returned by `state`."""


class TunasAgent(Agent):
    """Trains a controller by REINFORCE; the baseline is the moving average of the rewards."""

    def __init__(self, search: Search, objective: Objective, centres: Sequence[Known]):
        super().__init__(search, objective, centres)
        self.controller = Controller(search.latency.space, search.entropy_weight)
        self.baseline = DebiasedAverage()
        if objective.in_band:
            self.controller.start_from(self.start())

    def propose(self, rng: np.random.Generator, networks: int) -> np.ndarray:
        if self.objective.in_band:
            return self._draw(self.controller.probabilities(), rng, networks)
        return self.controller.sample(rng, networks)

    def measures_at(self, step: int) -> bool:
        return step >= self._search.schedule.first_paid_step

    def learn(
        self, step: int, trained: np.ndarray, costs: np.ndarray, measure: Measure, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        qualities = measure(trained)
        worth = np.array([self.objective.worth(q, c) for q, c in zip(qualities, costs, strict=True)])
        # A batch without boxes yields no reward: its quality is NaN.
        paid = np.isfinite(worth)
        if paid.any():
            rewards = worth[paid]
            self.baseline.update(float(rewards.mean()))
            policy = self.controller.probabilities()
            expected = self.objective.networks.marginals(policy) if self.objective.in_band else None
            rate = self._search.schedule.controller_learning_rate(step)
            self.controller.update(trained[paid], rewards - self.baseline.value, rate, expected)
        return trained, qualities

    def best(self, rng: np.random.Generator, networks: int) -> list[tuple[np.ndarray, str]]:
        """Returns the policy's most probable network in the band, its most probable options, and samples."""
        found = [(self.controller.best(), "argmax")]
        if self._search.extraction == "target":
            logs = [np.log(row) for row in self.controller.probabilities()]
            near = self.objective.networks.likeliest(logs)
            found = [*([] if near is None else [(near, "policy")]), *found]
        if self.objective.in_band and networks > len(found):
            drawn = self._draw(self.controller.probabilities(), rng, networks - len(found))
            found += [(network, "drawn") for network in drawn]
        return found

    def probabilities(self) -> Probabilities:
        return self.controller.probabilities()

    def state(self) -> dict[str, Any]:
        return {
            "controller": self.controller.state(),
            "baseline": [self.baseline.biased, self.baseline.weight],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.controller.restore(state["controller"])
        self.baseline.biased, self.baseline.weight = state["baseline"]


class EvolutionAgent(Agent):
    """Evolves a population in rounds.

    The shared weights are trained on mutations of the population's members, which are initially the
    known networks. In each round all members and new mutations and crossovers are measured with the
    same weights on the same images, and the best are kept (DetNAS, arXiv 1903.10979, does this once,
    after the training).
    """

    def __init__(self, search: Search, objective: Objective, centres: Sequence[Known]):
        super().__init__(search, objective, centres)
        self.members: list[list[int]] = []
        if search.region == "known":
            self.members = [list(one.decisions) for one in self.centres]

    def propose(self, rng: np.random.Generator, networks: int) -> np.ndarray:
        return np.concatenate([self._draw(self._parent(rng), rng, 1) for _ in range(networks)])

    def _parent(self, rng: np.random.Generator) -> Probabilities:
        """Returns the distribution of mutations of a random member; the whole space if there is no member."""
        space, members = self._search.latency.space, self.members
        if not members:
            return proposals.even(space)
        return proposals.around(space, members[rng.integers(len(members))], self._search.mutation_rate)

    def measures_at(self, step: int) -> bool:
        """Returns whether a round ends at a step.

        The steps after the delay are divided into rounds; the last one ends with the search.
        """
        schedule = self._search.schedule
        first, rounds = schedule.first_paid_step, self._search.rounds
        ends = (first + (schedule.steps - first) * number // rounds - 1 for number in range(1, rounds + 1))
        # Devices take turns; each one measures at its last turn before the end of the round.
        turns = len(self._search.steering)
        return step >= first and any(end - turns < step <= end for end in ends)

    def learn(
        self, step: int, trained: np.ndarray, costs: np.ndarray, measure: Measure, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        wanted = self._search.population + self._search.children
        pool = {tuple(member): None for member in self.members}
        for centre in self.centres:
            pool.setdefault(centre.decisions)
        for _ in range(4 * wanted):
            if len(pool) >= wanted:
                break
            pool.setdefault(tuple(self._child(rng).tolist()))
        networks = np.array(list(pool), np.int32)
        qualities = measure(networks)
        order = np.argsort(-np.nan_to_num(qualities, nan=-np.inf), kind="stable")
        self.members = networks[order[: self._search.population]].tolist()
        return networks, qualities

    def _child(self, rng: np.random.Generator) -> np.ndarray:
        """Returns a mutation or a crossover of members; any network of the band if there is no member."""
        if not self.members:
            return self._draw(self._parent(rng), rng, 1)[0]
        space, rate = self._search.latency.space, self._search.mutation_rate
        return self._draw(proposals.child(space, self.members, rate, rng), rng, 1)[0]

    def best(self, rng: np.random.Generator, networks: int) -> list[tuple[np.ndarray, str]]:
        """Returns the members of the population, best first."""
        return [(np.array(member, np.int32), "population") for member in self.members[:networks]]

    def probabilities(self) -> Probabilities:
        space, rate = self._search.latency.space, self._search.mutation_rate
        if not self.members:
            return proposals.even(space)
        return proposals.mixed([proposals.around(space, member, rate) for member in self.members])

    def state(self) -> dict[str, Any]:
        return {"members": self.members}

    def restore(self, state: dict[str, Any]) -> None:
        self.members = state["members"]


class RandomAgent(Agent):
    """Always draws from the initial distribution and learns nothing."""

    def propose(self, rng: np.random.Generator, networks: int) -> np.ndarray:
        return self._draw(self.start(), rng, networks)

    def measures_at(self, step: int) -> bool:
        return step >= self._search.schedule.first_paid_step

    def learn(
        self, step: int, trained: np.ndarray, costs: np.ndarray, measure: Measure, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return trained, measure(trained)

    def best(self, rng: np.random.Generator, networks: int) -> list[tuple[np.ndarray, str]]:
        """Returns new samples, because nothing was learnt."""
        return [(network, "random") for network in self.propose(rng, networks)]

    def probabilities(self) -> Probabilities:
        return self.start()


_AGENTS: dict[str, type[Agent]] = {"evolution": EvolutionAgent, "tunas": TunasAgent, "random": RandomAgent}


def make_agent(search: Search, objective: Objective, centres: Sequence[Known]) -> Agent:
    """Returns the agent of the search's algorithm for one device."""
    return _AGENTS[search.algorithm](search, objective, centres)
