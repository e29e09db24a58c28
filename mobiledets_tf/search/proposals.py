"""Which networks a search looks at: policies of independent decisions, as probabilities of each option."""

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mobiledets_tf.search_space import SKIP, SearchSpace

# For each decision, in the order of a decision vector: float64 [options].
Probabilities = Sequence[np.ndarray]
# What kinds drawn evenly give it in the largest space, which has three others.
_SKIP_SHARE = 0.25


# A search asks for it many times at every step.
@functools.lru_cache(maxsize=8)
def even(space: SearchSpace) -> Probabilities:
    """Widths evenly; kinds of layer evenly, and evenly among the options of a kind.

    A layer that can be left out is left out as often in every space. Without the kinds a Tucker layer, which
    has 8 of 17 options, would be half of all layers, and a skip a fifth of them in one space and a
    seventeenth in another.
    """
    rows = tuple(
        _even_kinds(node.choices) if node.tag == "op" else _even(node.choices)
        for _, node in space.decisions
    )
    for row in rows:
        row.flags.writeable = False
    return rows


def around(space: SearchSpace, network: Sequence[int], rate: float) -> Probabilities:
    """Mutations of a network: each decision is drawn anew from `even` with probability `rate`.

    Args:
      space: the search space.
      network: int [decisions].
      rate: from 0 to 1.
    """
    found = [rate * row for row in even(space)]
    for row, option in zip(found, network, strict=True):
        row[option] += 1.0 - rate
    return found


def mixed(several: Sequence[Probabilities]) -> Probabilities:
    """The mean of policies, decision by decision: draws of it cross the networks they stand for."""
    return [np.mean(rows, axis=0) for rows in zip(*several, strict=True)]


def _even(choices: Sequence) -> np.ndarray:
    return np.full(len(choices), 1.0 / len(choices))


def _even_kinds(choices: Sequence) -> np.ndarray:
    count = Counter(option.op for option in choices)
    skips = _SKIP_SHARE if SKIP in choices else 0.0
    kinds = len(count) - (SKIP in choices)
    return np.array(
        [skips if option == SKIP else (1.0 - skips) / (kinds * count[option.op]) for option in choices]
    )
