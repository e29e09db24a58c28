"""Features of a network that a linear model can read.

`layer_one_hot`, as in TuNAS's cost model: for each op position the indicator of
(input width, option, output width), plus the widths of C4 and C5, which the head reads. A cost
that adds up over layers is exactly linear in it.
"""

import dataclasses
import functools

import numpy as np

from mobiledets_tf.architecture.specs import ENDPOINT_STRIDES, ENDPOINTS
from mobiledets_tf.search_space import SearchSpace


@dataclasses.dataclass(frozen=True)
class Position:
    """An op position of a space, by indices into the decision vector.

    Attributes:
      name: `block<b>_layer<l>`.
      in_filters, op, out_filters: positions of the three decisions.
      shape: numbers of options of the three.
    """

    name: str
    in_filters: int
    op: int
    out_filters: int
    shape: tuple[int, int, int]


class LayerOneHot:
    """Active features of decision vectors.

    Features are numbered: stem width, then positions in order, then C4 and C5 widths.
    """

    name = "layer_one_hot"

    def __init__(self, space: SearchSpace):
        self.space = space
        self.positions = op_positions(space)
        self.endpoints = tuple(_filters_index(space, ENDPOINTS[name]) for name in ENDPOINT_STRIDES)
        counts = [len(node.choices) for _, node in space.decisions]
        blocks = [
            counts[0],
            *(int(np.prod(p.shape)) for p in self.positions),
            *(counts[i] for i in self.endpoints),
        ]
        self.offsets = np.concatenate([[0], np.cumsum(blocks)]).astype(np.int64)

    @property
    def count(self) -> int:
        """Number of features."""
        return int(self.offsets[-1])

    def active(self, decisions: np.ndarray) -> np.ndarray:
        """Indices of the features that are 1.

        Args:
          decisions: int [networks, decisions].

        Returns:
          int64 [networks, positions + 3].
        """
        columns = [decisions[:, 0]]
        for position in self.positions:
            indices = tuple(decisions[:, i] for i in (position.in_filters, position.op, position.out_filters))
            columns.append(np.ravel_multi_index(indices, position.shape))
        columns += [decisions[:, index] for index in self.endpoints]
        return np.stack(columns, axis=1) + self.offsets[:-1]


@functools.lru_cache(maxsize=16)
def op_positions(space: SearchSpace) -> tuple[Position, ...]:
    """All op positions of a space in order."""
    index = {path: i for i, (path, _) in enumerate(space.decisions)}
    counts = [len(node.choices) for _, node in space.decisions]
    positions, in_filters = [], index["stem_filters"]
    for b, block in enumerate(space.blocks):
        out_filters = index[f"blocks/{b}/filters"]
        for i in range(len(block.layers)):
            op = index[f"blocks/{b}/layers/{i}/op"]
            shape = (counts[in_filters], counts[op], counts[out_filters])
            positions.append(Position(f"block{b + 1}_layer{i + 1}", in_filters, op, out_filters, shape))
            in_filters = out_filters
    return tuple(positions)


def _filters_index(space: SearchSpace, block: int) -> int:
    paths = [path for path, _ in space.decisions]
    return paths.index(f"blocks/{block}/filters")


FEATURES = {LayerOneHot.name: LayerOneHot}
