"""What proposes networks for a device, and learns what they are worth."""

from typing import Any

import numpy as np

from mobiledets_tf.search.band import likeliest_in_band, sample_in_band
from mobiledets_tf.search.controller import Controller
from mobiledets_tf.search.reward import DebiasedAverage
from mobiledets_tf.search.settings import Objective, Search


class TunasAgent:
    """A controller and the average reward that its networks are compared with."""

    def __init__(self, search: Search, objective: Objective):
        self._search = search
        self.objective = objective
        self.controller = Controller(search.latency.space, search.entropy_weight)
        self.baseline = DebiasedAverage()

    def propose(self, rng: np.random.Generator, networks: int) -> np.ndarray:
        """int32 [networks, decisions]."""
        return self.controller.sample(rng, networks)

    def learn(self, decisions: np.ndarray, rewards: np.ndarray, learning_rate: float) -> None:
        """One update by the networks of all replicas.

        Args:
          decisions: int32 [replicas, decisions].
          rewards: float64 [replicas].
          learning_rate: of the controller.
        """
        self.baseline.update(float(np.mean(rewards)))
        self.controller.update(decisions, rewards - self.baseline.value, learning_rate)

    def found(self, rng: np.random.Generator) -> np.ndarray | None:
        """The network that the policy stands for; int32 [decisions]."""
        objective, search = self.objective, self._search
        if search.extraction == "target":
            near = likeliest_in_band(
                self.controller, objective.latency, objective.target, search.latency_band, rng
            )
            if near is not None:
                return near
        return self.controller.best()

    def state(self) -> dict[str, Any]:
        """A JSON-ready copy of everything that changes."""
        return {
            "controller": self.controller.state(),
            "baseline": [self.baseline.biased, self.baseline.weight],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a state again."""
        self.controller.restore(state["controller"])
        self.baseline.biased, self.baseline.weight = state["baseline"]


class RandomAgent:
    """Draws evenly from a band of cost around the target and learns nothing."""

    def __init__(self, search: Search, objective: Objective):
        self._band = search.latency_band
        self.objective = objective
        # Uniform for ever; reports read it like any other.
        self.controller = Controller(search.latency.space)

    def propose(self, rng: np.random.Generator, networks: int) -> np.ndarray:
        objective = self.objective
        return sample_in_band(objective.latency, objective.target, self._band, rng, networks)

    def learn(self, decisions: np.ndarray, rewards: np.ndarray, learning_rate: float) -> None:
        pass

    def found(self, rng: np.random.Generator) -> np.ndarray | None:
        """None: the best of the networks seen is taken."""
        return None

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


Agent = TunasAgent | RandomAgent


def make_agent(search: Search, objective: Objective) -> Agent:
    return (TunasAgent if search.algorithm == "tunas" else RandomAgent)(search, objective)
