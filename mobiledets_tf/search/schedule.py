"""Schedule of a search: warm-ups, the delay of the controller and learning rates.

Source: released TuNAS code; `Schedule` lists the values.
"""

import dataclasses
import math

import numpy as np

from mobiledets_tf.errors import InputError
from mobiledets_tf.search_space import SKIP, SearchSpace


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Settings that depend on the step.

    Attributes:
      steps: number of steps of the whole search.
      op_warmup, filter_warmup: duration of the warm-ups as a fraction of the search. During op
        warm-up an op decision is replaced by the mix of all options, during filter warm-up a width
        by the largest one, with a probability that falls linearly from 1 to 0.
      rl_delay: fraction of the search before the controller starts to learn.
      controller_rate: learning rate of the controller at the end of the delay; it grows
        exponentially to ten times this value at the end of the search.
      weight_rate: learning rate of the shared weights after a linear warm-up over 5 % of the
        steps; it then follows a cosine decay to 0.
    """

    steps: int
    op_warmup: float = 0.25
    filter_warmup: float = 0.25
    rl_delay: float = 0.25
    controller_rate: float = 4.8e-3
    weight_rate: float = 0.1

    def __post_init__(self) -> None:
        for name in ("op_warmup", "filter_warmup", "rl_delay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; allowed: from 0 to below 1")
        for name in ("op_warmup", "filter_warmup"):
            if getattr(self, name) > self.rl_delay:
                raise InputError(
                    f"{name} is {getattr(self, name)}; allowed: at most rl_delay, {self.rl_delay}, "
                    "because the controller would otherwise learn from mixtures of options"
                )

    def op_warmup_probability(self, step: int) -> float:
        """Returns the probability with which an op decision is replaced by the mix of all options."""
        return self._falling(step, self.op_warmup)

    def filter_warmup_probability(self, step: int) -> float:
        """Returns the probability with which a width is replaced by the largest one."""
        return self._falling(step, self.filter_warmup)

    def _falling(self, step: int, share: float) -> float:
        return max(0.0, 1.0 - step / (share * self.steps)) if share else 0.0

    @property
    def first_paid_step(self) -> int:
        """Number of the first step after the controller's delay, counted from 0."""
        return math.ceil(self.rl_delay * self.steps)

    def controller_learning_rate(self, step: int) -> float:
        """Returns the learning rate of the controller at a step; 0 during the delay."""
        start = self.rl_delay * self.steps
        if step < start:
            return 0.0
        return self.controller_rate * 10 ** ((step - start) / max(1.0, self.steps - start))

    def weight_learning_rate(self, step: int) -> float:
        """Returns the learning rate of the shared weights: linear warm-up, then cosine decay."""
        warmup = max(1.0, 0.05 * self.steps)
        if step < warmup:
            return self.weight_rate * (step + 1) / warmup
        return (
            self.weight_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, self.steps - warmup)))
        )


def warm_up(
    space: SearchSpace,
    decisions: np.ndarray,
    schedule: Schedule,
    step: int,
    rng: np.random.Generator,
    path_dropout: float = 0.0,
) -> np.ndarray:
    """Returns decisions with some ops replaced by the mix, some widths by the largest, some layers skipped.

    The mix of an op decision is represented by its number of options; see `models.supernet.mix_option`.

    Args:
      space: the search space.
      decisions: decision vector of a network, int32 [decisions].
      schedule: defines the warm-up probabilities at each step.
      step: number of the step, counted from 0.
      rng: random number generator.
      path_dropout: probability of skipping a layer that can be skipped.
    """
    warmed = decisions.copy()
    draws, drops = rng.random((2, len(decisions)))
    for index, (_, node) in enumerate(space.decisions):
        if node.tag == "op" and SKIP in node.choices and drops[index] < path_dropout:
            warmed[index] = node.choices.index(SKIP)
        if node.tag == "op" and draws[index] < schedule.op_warmup_probability(step):
            warmed[index] = len(node.choices)
        if node.tag == "filters" and draws[index] < schedule.filter_warmup_probability(step):
            warmed[index] = len(node.choices) - 1
    return warmed
