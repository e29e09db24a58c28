"""What proposes networks for a device, and learns what they are worth."""

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
    """One device's side of a search.

    Args:
      search: its settings.
      objective: the device.
      centres: known networks to search round.
    """

    def __init__(self, search: Search, objective: Objective, centres: Sequence[Known]):
        self._search = search
        self.objective = objective
        self.centres = list(centres)

    def propose(self, rng: np.random.Generator, networks: int) -> np.ndarray:
        """The networks that the shared weights are trained on next; int32 [networks, decisions]."""
        raise NotImplementedError

    def measures_at(self, step: int) -> bool:
        """Whether `learn` wants qualities after a step, counted from 0."""
        raise NotImplementedError

    def learn(
        self, step: int, trained: np.ndarray, measure: Measure, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Measures networks and learns from them.

        Args:
          step: from 0.
          trained: int32 [networks, decisions], those of `propose`.
          measure: takes qualities.
          rng: random state.

        Returns:
          The networks that were measured and their qualities.
        """
        raise NotImplementedError

    def best(self, rng: np.random.Generator, networks: int) -> list[tuple[np.ndarray, str]]:
        """Returns the networks to compare at the end, best first: (int32 [decisions], their source)."""
        raise NotImplementedError

    def probabilities(self) -> Probabilities:
        """Returns the policy that networks are drawn from, not yet restricted to the band."""
        raise NotImplementedError

    def entropy(self) -> float:
        """How open the search still is; see `controller.relative_entropy`."""
        return relative_entropy(self.probabilities())

    def start(self) -> Probabilities:
        """The distribution that a search starts from: mutations of the known networks, or the space."""
        space, search = self._search.latency.space, self._search
        if search.region == "space" or not self.centres:
            return proposals.even(space)
        return proposals.mixed(
            [proposals.around(space, centre.decisions, search.mutation_rate) for centre in self.centres]
        )

    def _draw(
        self, probabilities: Probabilities, rng: np.random.Generator, networks: int
    ) -> np.ndarray:
        return self.objective.networks.sample(probabilities, rng, networks)

    def state(self) -> dict[str, Any]:
        """A JSON-ready copy of everything that changes."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a state again."""


class TunasAgent(Agent):
    """A controller and the average reward that its networks are compared with."""

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

    def learn(self, step, trained, measure, rng):
        qualities = measure(trained)
        costs = self.objective.latency.predict(trained)
        worth = np.array([self.objective.worth(q, c) for q, c in zip(qualities, costs, strict=True)])
        # A batch without boxes pays nothing, and its quality is not a number.
        paid = np.isfinite(worth)
        if paid.any():
            rewards = worth[paid]
            self.baseline.update(float(rewards.mean()))
            policy = self.controller.probabilities()
            expected = self.objective.networks.marginals(policy) if self.objective.in_band else None
            rate = self._search.schedule.controller_learning_rate(step)
            self.controller.update(trained[paid], rewards - self.baseline.value, rate, expected)
        return trained, qualities

    def best(self, rng, networks):
        """The network that the policy stands for, its likeliest options, and draws of it."""
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
    """A population that the best of its mutations enter, a round at a time.

    The shared weights are trained on mutations of the population's members, which are the known
    networks at first. In a round all members and as many new mutations and crossings are measured
    with the same weights on the same images, and the best stay (as DetNAS, arXiv 1903.10979, does
    once, after the training).
    """

    def __init__(self, search: Search, objective: Objective, centres: Sequence[Known]):
        super().__init__(search, objective, centres)
        self.members: list[list[int]] = []
        if search.region == "known":
            self.members = [list(one.decisions) for one in self.centres]

    def propose(self, rng: np.random.Generator, networks: int) -> np.ndarray:
        return np.concatenate([self._draw(self._parent(rng), rng, 1) for _ in range(networks)])

    def _parent(self, rng: np.random.Generator) -> Probabilities:
        """Mutations of a random member; the whole space while there is none."""
        space, members = self._search.latency.space, self.members
        if not members:
            return proposals.even(space)
        return proposals.around(space, members[rng.integers(len(members))], self._search.mutation_rate)

    def measures_at(self, step: int) -> bool:
        """At the end of each round; rounds divide what follows the delay, the last ends with the search."""
        schedule = self._search.schedule
        first, rounds = schedule.first_paid_step, self._search.rounds
        ends = (first + (schedule.steps - first) * number // rounds - 1 for number in range(1, rounds + 1))
        # Devices take turns; each has its round at its last turn before the end.
        turns = len(self._search.steering)
        return step >= first and any(end - turns < step <= end for end in ends)

    def learn(self, step, trained, measure, rng):
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
        """A mutation of a member or, as often, of a crossing of two."""
        space, rate = self._search.latency.space, self._search.mutation_rate
        if len(self.members) < 2 or rng.random() < 0.5:
            return self._draw(self._parent(rng), rng, 1)[0]
        pair = [self.members[i] for i in rng.choice(len(self.members), 2, replace=False)]
        return self._draw(proposals.mixed([proposals.around(space, m, rate / 2) for m in pair]), rng, 1)[0]

    def best(self, rng, networks):
        """The members, best first."""
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
    """Draws from where a search starts, and learns nothing."""

    def propose(self, rng: np.random.Generator, networks: int) -> np.ndarray:
        return self._draw(self.start(), rng, networks)

    def measures_at(self, step: int) -> bool:
        return step >= self._search.schedule.first_paid_step

    def learn(self, step, trained, measure, rng):
        return trained, measure(trained)

    def best(self, rng, networks):
        """New draws: nothing was learnt."""
        return [(network, "random") for network in self.propose(rng, networks)]

    def probabilities(self) -> Probabilities:
        return self.start()


_AGENTS: dict[str, type[Agent]] = {"evolution": EvolutionAgent, "tunas": TunasAgent, "random": RandomAgent}


def make_agent(search: Search, objective: Objective, centres: Sequence[Known]) -> Agent:
    return _AGENTS[search.algorithm](search, objective, centres)
