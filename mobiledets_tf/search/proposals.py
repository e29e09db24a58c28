"""Sampling distributions of a search: independent decisions, given by the probability of each option."""

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mobiledets_tf.search_space import SKIP, SearchSpace

# The probabilities of each decision, float64 [options], in the order of a decision vector.
Probabilities = Sequence[np.ndarray]
# Probability of a skip: that of one of four equally likely kinds, as in the largest space.
_SKIP_SHARE = 0.25


# Cached because a search calls it many times in every step.
@functools.lru_cache(maxsize=8)
def even(space: SearchSpace) -> Probabilities:
    """Returns a distribution with equal probabilities of widths, of kinds of layer, and of options of a kind.

    The probability of a skip is the same in every space. If all options were equally likely, Tucker layers,
    which have 8 of 17 options, would be half of all layers, and skips would be a fifth of them in one space
    and a seventeenth in another.
    """
    rows = tuple(
        _even_kinds(node.choices) if node.tag == "op" else _even(node.choices) for _, node in space.decisions
    )
    for row in rows:
        row.flags.writeable = False
    return rows


def around(space: SearchSpace, network: Sequence[int], rate: float) -> Probabilities:
    """Returns the distribution of mutations of a network.

    Each decision is redrawn from `even` with probability `rate` and is kept otherwise.

    Args:
      space: the search space.
      network: decision vector of the network, int [decisions].
      rate: mutation rate, from 0 to 1.
    """
    found = [rate * row for row in even(space)]
    for row, option in zip(found, network, strict=True):
        row[option] += 1.0 - rate
    return found


def mixed(several: Sequence[Probabilities]) -> Probabilities:
    """Returns the mean of several distributions, decision by decision; its samples cross their networks."""
    return [np.mean(rows, axis=0) for rows in zip(*several, strict=True)]


def child(
    space: SearchSpace, members: Sequence[Sequence[int]], rate: float, rng: np.random.Generator
) -> Probabilities:
    """Returns, equally often, the distribution of mutations of a member or of crossovers of two members.

    Args:
      space: the search space.
      members: decision vectors of the networks to start from, each int [decisions]; at least one.
      rate: mutation rate; crossovers, which change more decisions, are mutated half as often.
      rng: random number generator.
    """
    if len(members) < 2 or rng.random() < 0.5:
        return around(space, members[int(rng.integers(len(members)))], rate)
    pair = rng.choice(len(members), 2, replace=False).tolist()
    return mixed([around(space, members[i], rate / 2) for i in pair])


def _even(choices: Sequence) -> np.ndarray:
    return np.full(len(choices), 1.0 / len(choices))


def _even_kinds(choices: Sequence) -> np.ndarray:
    count = Counter(option.op for option in choices)
    skips = _SKIP_SHARE if SKIP in choices else 0.0
    kinds = len(count) - (SKIP in choices)
    return np.array(
        [skips if option == SKIP else (1.0 - skips) / (kinds * count[option.op]) for option in choices]
    )
