"""What the controller is paid for."""


def absolute_reward(quality: float, cost: float, target: float, beta: float) -> float:
    """quality + beta * |cost / target - 1|: the absolute reward of TuNAS.

    Args:
      quality: AP or AP50, from 0 to 1.
      cost, target: in the unit of the latency model, above 0.
      beta: below 0.
    """
    return quality + beta * abs(cost / target - 1.0)


class DebiasedAverage:
    """Exponential moving average without the pull towards its start at zero.

    Args:
      momentum: share of the old value that is kept.
    """

    def __init__(self, momentum: float = 0.95):
        self.momentum = momentum
        self.biased = 0.0
        self.weight = 0.0

    @property
    def value(self) -> float:
        """The average; 0 before the first update."""
        return self.biased / self.weight if self.weight else 0.0

    def update(self, value: float) -> None:
        self.biased = self.momentum * self.biased + (1 - self.momentum) * value
        self.weight = self.momentum * self.weight + (1 - self.momentum)
