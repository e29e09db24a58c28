"""Decision vectors: int32 arrays with one option index per decision."""

from collections.abc import Sequence

import numpy as np

from mobiledets_tf.errors import InputError
from mobiledets_tf.search_space.spaces import SearchSpace


def sample(space: SearchSpace, rng: np.random.Generator) -> np.ndarray:
    """A uniform draw of every decision; int32 [decisions]. The same generator state gives
    the same network."""
    counts = [len(node.choices) for _, node in space.decisions]
    return rng.integers(0, counts).astype(np.int32)


def check_decisions(space: SearchSpace, decisions: Sequence[int]) -> None:
    """Raises InputError unless every index is in range and none is missing."""
    nodes = space.decisions
    if len(decisions) != len(nodes):
        raise InputError(f"{len(decisions)} decisions given; space {space.name!r} has {len(nodes)}")
    for index, (path, node) in zip(decisions, nodes, strict=True):
        if not 0 <= index < len(node.choices):
            raise InputError(f"decision {path} is {index}; allowed: 0 to {len(node.choices) - 1}")
