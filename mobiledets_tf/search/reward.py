"""Reward functions and the reward baseline of the controller."""

from collections.abc import Callable

from mobiledets_tf.errors import InputError

# Minus the detection loss, or COCO's average precision, on held-out images.
QUALITIES = ("loss", "AP", "AP50")
Reward = Callable[[float, float, float, float], float]


def band_reward(quality: float, cost: float, target: float, beta: float) -> float:
    """Returns the quality alone, for networks that are sampled inside a latency band."""
    return quality


def absolute_reward(quality: float, cost: float, target: float, beta: float) -> float:
    """Returns quality + beta * |cost / target - 1|, as in TuNAS (arXiv 2008.06120).

    Args:
      quality: AP or AP50, from 0 to 1.
      cost, target: predicted cost and target in the unit of the latency model, above 0.
      beta: weight of the cost, below 0.
    """
    return quality + beta * abs(cost / target - 1.0)


def mnas_reward(quality: float, cost: float, target: float, beta: float) -> float:
    """Returns quality * (cost / target) ** beta, MnasNet's soft constraint (arXiv 1807.11626)."""
    _require_positive(cost)
    return quality * (cost / target) ** beta


def mnas_hard_reward(quality: float, cost: float, target: float, beta: float) -> float:
    """Returns `mnas_reward` without a bonus for costs below the target."""
    _require_positive(cost)
    return quality * min((cost / target) ** beta, 1.0)


def _require_positive(cost: float) -> None:
    if not cost > 0:
        raise InputError(
            f"the predicted cost of a network is {cost:.6g}; rewards mnas and mnas_hard need costs above 0: "
            "use reward band or abs, or fit the latency model again"
        )


REWARDS: dict[str, Reward] = {
    "band": band_reward,
    "abs": absolute_reward,
    "mnas": mnas_reward,
    "mnas_hard": mnas_hard_reward,
}


class DebiasedAverage:
    """Exponential moving average without the bias towards its initial value of zero.

    Args:
      momentum: fraction of the old value that is kept in an update.
    """

    def __init__(self, momentum: float = 0.95):
        self.momentum = momentum
        self.biased = 0.0
        self.weight = 0.0

    @property
    def value(self) -> float:
        """The debiased average; 0 before the first update."""
        return self.biased / self.weight if self.weight else 0.0

    def update(self, value: float) -> None:
        """Adds a value to the average."""
        self.biased = self.momentum * self.biased + (1 - self.momentum) * value
        self.weight = self.momentum * self.weight + (1 - self.momentum)
