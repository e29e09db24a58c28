"""Layer positions of a search space, as indices into its decision vector."""

import dataclasses
import functools

from mobiledets_tf.search_space.spaces import SearchSpace


@dataclasses.dataclass(frozen=True)
class Position:
    """A layer position of a search space, given by indices into the decision vector.

    Attributes:
      name: name of the layer, `block<b>_layer<l>`.
      in_filters, op, out_filters: indices of the decisions on input width, operation and output width.
      shape: numbers of options of these three decisions.
    """

    name: str
    in_filters: int
    op: int
    out_filters: int
    shape: tuple[int, int, int]


@functools.lru_cache(maxsize=16)
def op_positions(space: SearchSpace) -> tuple[Position, ...]:
    """Returns all op positions of a search space, in order."""
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
