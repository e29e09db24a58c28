"""Networks whose predicted cost lies within a band around a target, drawn without rejection.

A cost is a sum of one table entry per op position (`LatencyModel.tables`), and an entry depends on
the width before the position, the option and the width after it. So the networks inside a band
are paths through a chain of widths whose costs add up to the band. Dynamic programming over
(width, cost so far) counts them, draws them from any policy of independent decisions, gives the
policy's probabilities inside the band, and finds the likeliest one. Costs are rounded to a
fraction of the band for that; every network that is returned was checked by its exact cost.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.latency.features import op_positions
from mobiledets_tf.search.proposals import Probabilities

# Steps of rounded cost across the band, and at most in all.
_STEPS_IN_BAND, _MAX_STEPS = 32, 4096
# Rounding moves a network's cost by 1.4 steps on average (22 entries), so this finds next to all of the band.
_MARGIN = 4
_ROUNDS = 200



@dataclasses.dataclass(frozen=True, eq=False)
class _Stage:
    """A place of the chain where a width, an option, or both are chosen.

    Attributes:
      decisions: indices of the decisions made here.
      choices: int [choices, decisions]: what each choice means for them.
      cost: int [widths before, choices], in steps.
      after: int [widths before, choices], the width that follows.
    """

    decisions: tuple[int, ...]
    choices: np.ndarray
    cost: np.ndarray
    after: np.ndarray

    def weights(self, of_decision: Probabilities) -> np.ndarray:
        """float64 [decisions, choices]: of each decision made here the value of its option."""
        columns = zip(self.decisions, self.choices.T, strict=True)
        return np.stack([np.asarray(of_decision[index])[column] for index, column in columns])


class Band:
    """Networks whose cost is within `width` of the target.

    Args:
      latency: predicts costs.
      target: centre of the band, in the unit of the model.
      width: largest distance from it, as a share of it.

    Raises:
      InputError: no network of the space is that cheap or that dear.
    """

    def __init__(self, latency: LatencyModel, target: float, width: float):
        self.latency, self.target, self.width = latency, target, width
        stages, floor = _stages(latency)
        lowest = floor + _extreme(stages, np.min)
        highest = floor + _extreme(stages, np.max)
        if lowest > target * (1 + width) or highest < target * (1 - width):
            raise InputError(
                f"no network of space {latency.space.name!r} costs {target:,.6g} {latency.unit} within "
                f"{width:.1%}; they cost {lowest:,.6g} to {highest:,.6g}: move the target"
            )
        top = target * (1 + width) - floor
        step = max(2 * width * target / _STEPS_IN_BAND, top / (_MAX_STEPS - 2 * _MARGIN))
        self._low = int(np.floor((target * (1 - width) - floor) / step)) - _MARGIN
        self._high = int(np.ceil(top / step)) + _MARGIN
        rounded = [np.rint(stage.cost / step).astype(np.int64) for stage in stages]
        self._stages = [
            dataclasses.replace(stage, cost=cost) for stage, cost in zip(stages, rounded, strict=True)
        ]
        self._places = [self._place(stage) for stage in self._stages]

    def contains(self, decisions: np.ndarray) -> np.ndarray:
        """Whether networks lie inside, by their exact predicted cost.

        Args:
          decisions: int [networks, decisions].

        Returns:
          bool [networks].
        """
        return np.abs(self.latency.predict(decisions) / self.target - 1) <= self.width

    def share(self, probabilities: Probabilities) -> float:
        """Probability that a draw lies inside, up to the rounding of costs."""
        return float(self._completions(probabilities, margin=0)[0][0, 0])

    def sample(
        self, probabilities: Probabilities, rng: np.random.Generator, networks: int
    ) -> np.ndarray:
        """Draws networks from a policy, given that they lie inside.

        Args:
          probabilities: of the options of each decision; need not add up to 1.
          rng: random state.
          networks: how many.

        Returns:
          int32 [networks, decisions].

        Raises:
          InputError: the policy holds no network inside.
        """
        values = self._completions(probabilities, _MARGIN)
        found: list[np.ndarray] = []
        if values[0][0, 0] > 0:
            for _ in range(_ROUNDS):
                drawn = self._draw(probabilities, values, rng, max(8, 2 * (networks - len(found))))
                found.extend(drawn[self.contains(drawn)])
                if len(found) >= networks:
                    return np.stack(found[:networks])
        raise InputError(
            f"{len(found)} networks found that cost {self.target:,.6g} {self.latency.unit} within "
            f"{self.width:.1%}: widen the band or move the target"
        )

    def marginals(self, probabilities: Probabilities) -> list[np.ndarray]:
        """Probability of each option given that the network lies inside; float64 [options] each."""
        values = self._completions(probabilities, margin=0)
        if not values[0][0, 0] > 0:
            # The policy's networks lie inside by their exact costs only.
            values = self._completions(probabilities, _MARGIN)
        reached = np.zeros((1, self._high + 2))
        reached[0, 0] = 1.0 / values[0][0, 0]
        found = [np.zeros(len(row)) for row in probabilities]
        for stage, places, value in zip(self._stages, self._places, values[1:], strict=True):
            chances = stage.weights(probabilities).prod(axis=0)
            ends = value.ravel()[places]
            chosen = chances * np.einsum("ic,iwc->w", reached[:, :-1], ends)
            for index, column in zip(stage.decisions, stage.choices.T, strict=True):
                found[index] += np.bincount(column, chosen, len(found[index]))
            moved = chances[None, :, None] * reached[:, None, :-1]
            reached = np.bincount(places.ravel(), moved.ravel(), value.size).reshape(value.shape)
            reached[:, -1] = 0.0
        return [row / row.sum() for row in found]

    def likeliest(self, scores: Probabilities) -> np.ndarray | None:
        """The network inside with the largest sum of scores; None where none was found.

        Args:
          scores: of the options of each decision, log-probabilities for instance; -inf forbids one.

        Returns:
          int32 [decisions].
        """
        for margin in range(0, -_STEPS_IN_BAND // 2, -1):
            values = self._completions(scores, margin, best=True)
            if not np.isfinite(values[0][0, 0]):
                return None
            (network,) = self._draw(scores, values, None, 1)
            if self.contains(network[None])[0]:
                return network
        return None

    def _place(self, stage: _Stage) -> np.ndarray:
        """Index into the next values that each choice leads to, from each width and cost; int32 [widths,
        choices, costs]. The last cost of a width stands for all that are too high."""
        columns = self._high + 2
        cost = np.arange(columns - 1) + stage.cost[:, :, None]
        return (stage.after[:, :, None] * columns + np.minimum(cost, columns - 1)).astype(np.int32)

    def _completions(self, of_decision: Probabilities, margin: int, best: bool = False) -> list[np.ndarray]:
        """Before each stage, and after the last: probability of ending inside, by width and cost so
        far; with `best` the largest sum of scores that ends inside. float64 [widths, costs]."""
        low, high = max(0, self._low + _MARGIN - margin), self._high - _MARGIN + margin
        end = np.full((int(self._stages[-1].after.max()) + 1, self._high + 2), -np.inf if best else 0.0)
        end[:, low : high + 1] = 0.0 if best else 1.0
        values = [end]
        for stage, places in zip(reversed(self._stages), reversed(self._places), strict=True):
            ends = values[0].ravel()[places]
            if best:
                now = (ends + stage.weights(of_decision).sum(axis=0)[None, :, None]).max(axis=1)
            else:
                now = np.einsum("w,iwc->ic", stage.weights(of_decision).prod(axis=0), ends)
            values.insert(0, np.pad(now, ((0, 0), (0, 1)), constant_values=-np.inf if best else 0.0))
        return values

    def _draw(self, of_decision, values: list[np.ndarray], rng, networks: int) -> np.ndarray:
        """Walks the chain; without `rng` by the best choice at each stage."""
        width, cost = np.zeros(networks, np.int64), np.zeros(networks, np.int64)
        found = np.zeros((networks, len(of_decision)), np.int32)
        for stage, places, value in zip(self._stages, self._places, values[1:], strict=True):
            ends = value.ravel()[places[width, :, cost]]
            weights = stage.weights(of_decision)
            if rng is None:
                choice = (ends + weights.sum(axis=0)).argmax(axis=1)
            else:
                edges = (ends * weights.prod(axis=0)).cumsum(axis=1)
                draws = rng.random(networks) * edges[:, -1]
                choice = np.minimum((draws[:, None] >= edges).sum(axis=1), edges.shape[1] - 1)
            found[:, stage.decisions] = stage.choices[choice]
            cost += stage.cost[width, choice]
            width = stage.after[width, choice]
        return found


def _stages(latency: LatencyModel) -> tuple[list[_Stage], float]:
    """The chain with costs of at least 0 in the model's unit, and what has to be added to them."""
    stem, layers, endpoints = latency.tables()
    widths = np.arange(len(stem))
    stages = [_Stage((0,), widths[:, None], stem[None], widths[None])]
    for position, table in zip(op_positions(latency.space), layers, strict=True):
        before, options, after = table.shape
        if position.in_filters == position.out_filters:
            own = np.arange(before)
            stages.append(
                _Stage(
                    (position.op,), np.arange(options)[:, None], table[own, :, own],
                    np.repeat(own[:, None], options, axis=1),
                )
            )  # fmt: skip
            continue
        if position.out_filters in endpoints:
            table = table + endpoints[position.out_filters]
        choices = np.stack(np.unravel_index(np.arange(options * after), (options, after)), axis=1)
        stages.append(
            _Stage(
                (position.op, position.out_filters), choices, table.reshape(before, -1),
                np.repeat(choices[None, :, 1], before, axis=0),
            )
        )  # fmt: skip
    lowest = [float(stage.cost.min()) for stage in stages]
    moved = [
        dataclasses.replace(stage, cost=stage.cost - low) for stage, low in zip(stages, lowest, strict=True)
    ]
    return moved, latency.intercept + sum(lowest)


def _extreme(stages: Sequence[_Stage], of) -> float:
    """The cheapest or dearest path; `of` is np.min or np.max."""
    rest = np.zeros(int(stages[-1].after.max()) + 1)
    for stage in reversed(stages):
        rest = of(stage.cost + rest[stage.after], axis=1)
    return float(rest[0])
