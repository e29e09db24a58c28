"""Networks whose predicted cost lies within a band around a target, sampled by dynamic programming.

The cost of a network is a sum of one table entry per op position (`LatencyModel.tables`), and an entry
depends on the width before the position, the option and the width after it. So the networks inside a
band are paths through a chain of widths whose total cost lies in the band. Dynamic programming over
(width, cost so far) computes their share, samples them from any policy of independent decisions,
computes the policy's marginal probabilities inside the band, and finds the most probable network. For
this, costs are rounded to a fraction of the band; every returned network is checked by its exact cost.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.search.proposals import Probabilities
from mobiledets_tf.search_space.positions import op_positions

# Number of rounded cost steps across the band, and the maximum number in total.
_STEPS_IN_BAND, _MAX_STEPS = 32, 4096
# Extra cost steps on both sides of the band. Rounding changes a network's cost by 1.4 steps on average (22
# entries), so with this margin nearly all networks of the band are found.
_MARGIN = 4
_ROUNDS = 200


@dataclasses.dataclass(frozen=True, eq=False)
class _Stage:
    """A stage of the chain at which a width, an option, or both are chosen.

    Attributes:
      decisions: indices of the decisions made at this stage.
      choices: option of each of these decisions for each choice, int [choices, decisions].
      cost: cost of each choice in rounded steps, int [widths before, choices].
      after: index of the width after the stage, int [widths before, choices].
    """

    decisions: tuple[int, ...]
    choices: np.ndarray
    cost: np.ndarray
    after: np.ndarray

    def weights(self, of_decision: Probabilities) -> np.ndarray:
        """Returns the value of each decision's option for each choice; float64 [decisions, choices]."""
        columns = zip(self.decisions, self.choices.T, strict=True)
        return np.stack([np.asarray(of_decision[index])[column] for index, column in columns])


class Band:
    """The networks whose predicted cost is within `width` of the target.

    Args:
      latency: latency model that predicts the costs.
      target: centre of the band, in the unit of the latency model.
      width: largest distance from the target, as a fraction of the target.

    Raises:
      InputError: no network of the space has a cost inside the band.
    """

    def __init__(self, latency: LatencyModel, target: float, width: float):
        self.latency, self.target, self.width = latency, target, width
        stages, floor = _stages(latency)
        lowest = floor + _extreme(stages, np.min)
        highest = floor + _extreme(stages, np.max)
        if lowest > target * (1 + width) or highest < target * (1 - width):
            raise InputError(
                f"no network of space {latency.space.name!r} has a cost within {width:.1%} of {target:,.6g} "
                f"{latency.unit}; its networks cost {lowest:,.6g} to {highest:,.6g}: change the target"
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
        """Returns whether networks lie inside the band by their exact predicted cost.

        Args:
          decisions: decision vectors of the networks, int [networks, decisions].

        Returns:
          bool [networks].
        """
        return np.abs(self.latency.predict(decisions) / self.target - 1) <= self.width

    def share(self, probabilities: Probabilities) -> float:
        """Returns the probability that a sampled network lies inside the band, up to rounding of costs."""
        return float(self._completions(probabilities, margin=0)[0][0, 0])

    def sample(self, probabilities: Probabilities, rng: np.random.Generator, networks: int) -> np.ndarray:
        """Samples networks from a policy conditioned on the band.

        Args:
          probabilities: probabilities of the options of each decision; they need not sum to 1.
          rng: random number generator.
          networks: number of networks to draw.

        Returns:
          int32 [networks, decisions].

        Raises:
          InputError: too few networks of the policy were found inside the band.
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
            f"only {len(found)} networks with a cost within {self.width:.1%} of {self.target:,.6g} "
            f"{self.latency.unit} were found; wanted: {networks}. Widen the band or change the target"
        )

    def marginals(self, probabilities: Probabilities) -> list[np.ndarray]:
        """Returns each option's probability given that the network is in the band; float64 [options] each."""
        values = self._completions(probabilities, margin=0)
        if not values[0][0, 0] > 0:
            # The policy's networks may lie inside by their exact costs and outside by the rounded ones.
            values = self._completions(probabilities, _MARGIN)
        reached: np.ndarray = np.zeros((1, self._high + 2))
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
        """Returns the network in the band with the largest sum of scores; None if none was found.

        Args:
          scores: scores of the options of each decision, for instance log-probabilities; -inf forbids an
            option.

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
        """Returns the index into the next stage's values that each choice leads to.

        The last cost of a width stands for all costs that are too high.

        Returns:
          int32 [widths, choices, costs].
        """
        columns = self._high + 2
        cost = np.arange(columns - 1) + stage.cost[:, :, None]
        return (stage.after[:, :, None] * columns + np.minimum(cost, columns - 1)).astype(np.int32)

    def _completions(self, of_decision: Probabilities, margin: int, best: bool = False) -> list[np.ndarray]:
        """Computes the values before each stage and after the last one, by width and cost so far.

        Args:
          of_decision: probabilities or, with `best`, scores of the options of each decision.
          margin: cost steps by which the band is widened on both sides.
          best: whether to maximise scores instead of summing probabilities.

        Returns:
          For each stage the probability of ending inside the band or, with `best`, the largest sum of
          scores that ends inside; float64 [widths, costs].
        """
        low, high = max(0, self._low + _MARGIN - margin), self._high - _MARGIN + margin
        end = np.full((int(self._stages[-1].after.max()) + 1, self._high + 2), -np.inf if best else 0.0)
        end[:, low : high + 1] = 0.0 if best else 1.0
        values: list[np.ndarray] = [end]
        for stage, places in zip(reversed(self._stages), reversed(self._places), strict=True):
            ends = values[0].ravel()[places]
            if best:
                now = (ends + stage.weights(of_decision).sum(axis=0)[None, :, None]).max(axis=1)
            else:
                now = np.einsum("w,iwc->ic", stage.weights(of_decision).prod(axis=0), ends)
            values.insert(0, np.pad(now, ((0, 0), (0, 1)), constant_values=-np.inf if best else 0.0))
        return values

    def _draw(
        self,
        of_decision: Sequence[np.ndarray],
        values: list[np.ndarray],
        rng: np.random.Generator | None,
        networks: int,
    ) -> np.ndarray:
        """Walks the chain and samples a choice at each stage; without `rng` takes the best choice."""
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
    """Returns (stages with costs of at least 0 in the model's unit, constant to add to their sum)."""
    stem, layers, endpoints = latency.tables()
    widths = np.arange(len(stem))
    stages = [_Stage((0,), widths[:, None], stem[None], widths[None])]
    for position, table in zip(op_positions(latency.space), layers, strict=True):
        before, options, after = table.shape
        if position.in_filters == position.out_filters:
            own = np.arange(before)
            stages.append(
                _Stage(
                    (position.op,),
                    np.arange(options)[:, None],
                    table[own, :, own],
                    np.repeat(own[:, None], options, axis=1),
                )
            )
            continue
        if position.out_filters in endpoints:
            table = table + endpoints[position.out_filters]
        choices = np.stack(np.unravel_index(np.arange(options * after), (options, after)), axis=1)
        stages.append(
            _Stage(
                (position.op, position.out_filters),
                choices,
                table.reshape(before, -1),
                np.repeat(choices[None, :, 1], before, axis=0),
            )
        )
    lowest = [float(stage.cost.min()) for stage in stages]
    moved = [
        dataclasses.replace(stage, cost=stage.cost - low) for stage, low in zip(stages, lowest, strict=True)
    ]
    return moved, latency.intercept + sum(lowest)


def _extreme(stages: Sequence[_Stage], of: Callable) -> float:
    """Returns the cost of the cheapest or most expensive path; `of` is np.min or np.max."""
    rest = np.zeros(int(stages[-1].after.max()) + 1)
    for stage in reversed(stages):
        rest = of(stage.cost + rest[stage.after], axis=1)
    return float(rest[0])
