"""Decision vectors: int32 arrays with one option index per decision."""

from collections.abc import Sequence

import numpy as np

from mobiledets_tf.errors import InputError
from mobiledets_tf.search_space.spaces import SearchSpace


def sample(space: SearchSpace, rng: np.random.Generator, networks: int | None = None) -> np.ndarray:
    """Samples every decision uniformly; the same generator state reproduces the same network.

    Args:
      space: the search space.
      rng: random number generator.
      networks: number of networks to draw; None draws one and omits that dimension.

    Returns:
      int32 [networks, decisions].
    """
    counts = [len(node.choices) for _, node in space.decisions]
    shape = None if networks is None else (networks, len(counts))
    return rng.integers(0, counts, shape).astype(np.int32)


def check_decisions(space: SearchSpace, decisions: Sequence[int] | np.ndarray) -> None:
    """Raises InputError unless there is one index per decision and every index is in range."""
    nodes = space.decisions
    if len(decisions) != len(nodes):
        raise InputError(f"{len(decisions)} decisions given; space {space.name!r} has {len(nodes)}")
    for index, (path, node) in zip(decisions, nodes, strict=True):
        if not 0 <= index < len(node.choices):
            raise InputError(f"decision {path} is {index}; allowed: 0 to {len(node.choices) - 1}")
