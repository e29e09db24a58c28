"""The policy over a space: one independent categorical per decision, trained by REINFORCE."""

from typing import Any

import numpy as np

from mobiledets_tf.search_space import SearchSpace

# TuNAS: Adam without momentum.
_BETA2, _EPSILON = 0.999, 1e-8


class Controller:
    """Logits of every decision; all start at 0, a uniform policy.

    Args:
      space: the search space.
    """

    def __init__(self, space: SearchSpace):
        self.logits = [np.zeros(len(node.choices)) for _, node in space.decisions]
        self._squares = [np.zeros_like(row) for row in self.logits]
        self._updates = 0

    def probabilities(self) -> list[np.ndarray]:
        """Softmax of each row of logits."""
        return [_softmax(row) for row in self.logits]

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """A draw from the policy; int32 [decisions]."""
        return np.array([rng.choice(len(p), p=p) for p in self.probabilities()], np.int32)

    def best(self) -> np.ndarray:
        """The likeliest option of each decision; int32 [decisions]."""
        return np.array([int(row.argmax()) for row in self.logits], np.int32)

    def entropy(self) -> float:
        """Mean entropy of the decisions over that of the uniform policy; 1 at the start."""
        shares = [-(p * np.log(p)).sum() / np.log(len(p)) for p in self.probabilities() if len(p) > 1]
        return float(np.mean(shares)) if shares else 0.0

    def update(self, decisions: np.ndarray, advantage: float, learning_rate: float) -> None:
        """One step up the policy gradient of advantage * log-probability."""
        self._updates += 1
        correction = 1 - _BETA2**self._updates
        for row, squares, p, chosen in zip(
            self.logits, self._squares, self.probabilities(), decisions, strict=True
        ):
            gradient = -p * advantage
            gradient[chosen] += advantage
            squares += (1 - _BETA2) * (gradient**2 - squares)
            row += learning_rate * gradient / (np.sqrt(squares / correction) + _EPSILON)

    def state(self) -> dict[str, Any]:
        """A JSON-ready copy of everything that changes."""
        return {
            "logits": [row.tolist() for row in self.logits],
            "squares": [row.tolist() for row in self._squares],
            "updates": self._updates,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a state again."""
        self.logits = [np.array(row) for row in state["logits"]]
        self._squares = [np.array(row) for row in state["squares"]]
        self._updates = state["updates"]


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()
