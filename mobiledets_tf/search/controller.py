"""Policy over a search space: one independent categorical per decision, trained by REINFORCE.

The policy is hierarchical: a decision inside an alternative that was not chosen contributes
nothing to the log-probability, the entropy or the gradient (TuNAS, arXiv 2008.06120).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mobiledets_tf.search_space import OneOf, on_path, one_ofs

# Adam without momentum, as in TuNAS.
_BETA2, _EPSILON = 0.999, 1e-8
_LEAST = 1e-6  # Lower bound of a probability that the policy starts from.


class Controller:
    """Logits of every decision; all are initialised to 0, which is a uniform policy.

    Args:
      space: the search space, or any data that contains `OneOf` nodes.
      entropy_weight: weight of the entropy bonus: a plain gradient step of this weight times the
        learning rate increases the entropy, outside Adam, as in TuNAS.
    """

    def __init__(self, space: Any, entropy_weight: float = 0.0):
        self.space = space
        self.entropy_weight = entropy_weight
        nodes: list[OneOf] = [node for _, node in one_ofs(space)]
        self._counts = [len(node.choices) for node in nodes]
        self._nested = len(nodes) > sum(on_path(space, [0] * len(nodes)))
        # One row per decision; entries beyond the number of its options are masked.
        self._real = np.arange(max(self._counts)) < np.array(self._counts)[:, None]
        self._logits = np.zeros(self._real.shape)
        self._squares = np.zeros(self._real.shape)
        self._updates = 0

    @property
    def logits(self) -> list[np.ndarray]:
        """Logits of each decision, float64 [options]."""
        return [row[:count] for row, count in zip(self._logits, self._counts, strict=True)]

    def probabilities(self) -> list[np.ndarray]:
        """Returns the softmax of each decision's logits, float64 [options]."""
        return [row[:count] for row, count in zip(self._probabilities(), self._counts, strict=True)]

    def _probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """Returns probabilities, float64 [decisions, most options]; 0 beyond a decision's options."""
        logits = np.where(self._real, self._logits / temperature, -np.inf)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def start_from(self, probabilities: Sequence[np.ndarray]) -> None:
        """Sets the policy to given probabilities; a probability of 0 is raised to a small one.

        Args:
          probabilities: probabilities of each decision, float64 [options].
        """
        for row, given in zip(self._logits, probabilities, strict=True):
            logs = np.log(np.maximum(given, _LEAST))
            row[: len(logs)] = logs - logs.mean()

    def sample(
        self, rng: np.random.Generator, networks: int | None = None, temperature: float = 1.0
    ) -> np.ndarray:
        """Draws networks from the policy.

        Args:
          rng: random number generator.
          networks: number of networks to draw; None draws one and omits that dimension.
          temperature: values above 1 flatten the policy that is drawn from.

        Returns:
          int32 [networks, decisions].
        """
        edges = self._probabilities(temperature).cumsum(axis=1)[:, :-1]
        draws = rng.random((networks or 1, len(self._counts)))
        # The last edge is omitted because rounding may put it below 1.
        found = (draws[:, :, None] >= edges).sum(axis=2)
        found = np.minimum(found, np.array(self._counts) - 1).astype(np.int32)
        return found if networks else found[0]

    def best(self) -> np.ndarray:
        """Returns the most probable option of each decision; int32 [decisions]."""
        return self._probabilities().argmax(axis=1).astype(np.int32)

    def log_probability(self, decisions: np.ndarray) -> np.ndarray:
        """Returns the log-probability of each network; float64 [networks].

        Args:
          decisions: decision vectors of the networks, int [networks, decisions].
        """
        with np.errstate(divide="ignore"):
            logs = np.log(self._probabilities())
        chosen = logs[np.arange(len(self._counts)), decisions]
        return np.where(self._on_path(decisions), chosen, 0.0).sum(axis=1)

    def entropy(self) -> float:
        """Returns the `relative_entropy` of the policy; it is 1 for the initial uniform policy."""
        return relative_entropy(self.probabilities())

    def update(
        self,
        decisions: np.ndarray,
        advantages: Sequence[float],
        learning_rate: float,
        expected: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Takes one policy gradient step: ascends the mean over replicas of advantage * log-probability.

        The gradients are squared before they are averaged for Adam's second moment (TuNAS), so
        that moment is that of a single sample, however many samples there are.

        Args:
          decisions: decision vectors of the sampled networks, int32 [replicas, decisions].
          advantages: reward minus baseline of each network, [replicas].
          learning_rate: learning rate of this step.
          expected: marginal probabilities of the distribution that the networks were drawn from, float64
            [options] for each decision. Needed where that is the policy conditioned on a latency band: the
            gradient of the log-probability is then the network's one-hot options minus these. Default: the
            policy itself.
        """
        probabilities = self._probabilities()
        drawn_from = probabilities
        if expected is not None:
            drawn_from = np.zeros_like(probabilities)
            for row, given in zip(drawn_from, expected, strict=True):
                row[: len(given)] = given
        counts = self._on_path(decisions)[:, :, None]
        chosen = np.arange(self._real.shape[1]) == np.asarray(decisions)[:, :, None]
        gradients = np.where(counts, (chosen - drawn_from) * np.asarray(advantages)[:, None, None], 0.0)
        self._updates += 1
        self._squares += (1 - _BETA2) * ((gradients**2).mean(axis=0) - self._squares)
        scale = np.sqrt(self._squares / (1 - _BETA2**self._updates)) + _EPSILON
        self._logits += learning_rate * gradients.mean(axis=0) / scale
        if self.entropy_weight:
            with np.errstate(divide="ignore", invalid="ignore"):
                logs = np.where(probabilities > 0, np.log(probabilities), 0.0)
            rise = -probabilities * (logs + _entropies(probabilities)[:, None])
            self._logits += learning_rate * self.entropy_weight * (rise * counts.mean(axis=0))

    def _on_path(self, decisions: np.ndarray) -> np.ndarray:
        """Returns which decisions of each network are in effect; bool [networks, decisions]."""
        if not self._nested:
            return np.ones(np.shape(decisions), bool)
        return np.array([on_path(self.space, row) for row in decisions])

    def state(self) -> dict[str, Any]:
        """Returns a JSON-ready copy of everything that changes during a search."""
        return {
            "logits": self._logits.tolist(),
            "squares": self._squares.tolist(),
            "updates": self._updates,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state returned by `state`."""
        self._logits = np.array(state["logits"])
        self._squares = np.array(state["squares"])
        self._updates = state["updates"]


def relative_entropy(probabilities: Sequence[np.ndarray]) -> float:
    """Returns the mean entropy of the decisions as a fraction of the uniform policy's.

    The value is 0 where no decision has more than one option.

    Args:
      probabilities: probabilities of each decision, float64 [options].
    """
    parts = [_entropies(row[None])[0] / np.log(len(row)) for row in probabilities if len(row) > 1]
    return float(np.mean(parts)) if parts else 0.0


def _entropies(probabilities: np.ndarray) -> np.ndarray:
    """Returns the entropy of each decision in nats; float64 [decisions]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(probabilities > 0, probabilities * np.log(probabilities), 0.0)
    return -terms.sum(axis=1)
