"""Features of a network that a linear model can read.

`layer_one_hot`, as in TuNAS's cost model: for each op position the indicator of
(input width, option, output width), plus the widths of C4 and C5, which the head reads. A cost
that adds up over layers is exactly linear in it.

`op_sums`: sums over all operations of one type, kernel, stride and resolution: how many,
multiply-adds, multiply-adds with widths padded to 16, to 32 and to 64, bytes of maps, bytes of weights. A few
hundred measured networks determine them, where one-hot features need thousands.
"""

import dataclasses
import functools

import numpy as np

from mobiledets_tf.architecture.ops import ConvOp, PlacedOp
from mobiledets_tf.architecture.specs import ENDPOINT_STRIDES, ENDPOINTS
from mobiledets_tf.latency.tables import layer_tables
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

    def sum(self, table: np.ndarray, decisions: np.ndarray) -> np.ndarray:
        """Sums of a table's entries; float64 [features] and int [networks, decisions] -> [networks].

        A position at a time, so that what is worked on stays in the cache.
        """
        columns = [np.ascontiguousarray(column) for column in decisions.T]
        total = table[columns[0]]
        for position, offset in zip(self.positions, self.offsets[1:], strict=False):
            a, b, c = (columns[i] for i in (position.in_filters, position.op, position.out_filters))
            _, ops, outs = position.shape
            total += table[(a * ops + b) * outs + c + offset]
        for index, offset in zip(self.endpoints, self.offsets[len(self.positions) + 1 :], strict=False):
            total += table[columns[index] + offset]
        return total


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


# What is summed, with the unit that a coefficient is per.
_QUANTITIES = {
    "count": 1.0, "madds": 1e-6, "padded16_madds": 1e-6, "padded32_madds": 1e-6, "padded64_madds": 1e-6,
    "map_bytes": 2.0**-20, "weight_bytes": 2.0**-20,
}  # fmt: skip
# Accelerators compute channels in steps of their array's side, CPUs in steps of a vector register.
_LANES = (16, 32, 64)


class OpSums:
    """Sums over operations, and how each decision contributes to them.

    Features are named `TYPE@HxW.QUANTITY` (pointwise, depthwise or full convolution, the map it
    writes, what is summed) and, finer, `TYPE KxK sSTRIDE@HxW.QUANTITY`. Both are there: where
    samples are few, ridge regression leans on the coarse ones.

    Attributes:
      names: of the features.
      rows: float64 [features of LayerOneHot, features]: what each decision adds.
    """

    name = "op_sums"

    def __init__(self, space: SearchSpace, image_size: tuple[int, int], num_classes: int, head: str):
        counted, _ = layer_tables(space, image_size, num_classes, head, _sums)
        self.names = tuple(sorted({name for row in counted for name in row}))
        column = {name: i for i, name in enumerate(self.names)}
        self.rows = np.zeros((len(counted), len(self.names)))
        for row, sums in zip(self.rows, counted, strict=True):
            for name, value in sums.items():
                row[column[name]] = value
        self._one_hot = LayerOneHot(space)

    def matrix(self, decisions: np.ndarray) -> np.ndarray:
        """Features of networks; int [networks, decisions] -> float64 [networks, features]."""
        active = self._one_hot.active(np.asarray(decisions))
        total = np.zeros((len(active), len(self.names)))
        for column in active.T:
            total += self.rows[column]
        return total


@functools.lru_cache(maxsize=8)
def op_sums(space: SearchSpace, image_size: tuple[int, int], num_classes: int, head: str) -> OpSums:
    """The `OpSums` of a space, made once."""
    return OpSums(space, image_size, num_classes, head)


def _sums(ops: list[PlacedOp], residual: bool) -> dict[str, float]:
    """Named sums of one layer."""
    sums: dict[str, float] = {}
    for placed in ops:
        height, width = placed.out_size
        for kind in _types(placed.op):
            for quantity, value in _quantities(placed).items():
                name = f"{kind}@{height}x{width}.{quantity}"
                sums[name] = sums.get(name, 0.0) + value * _QUANTITIES[quantity]
    if residual:
        height, width = ops[-1].out_size
        maps = 3 * height * width * ops[-1].op.out_channels
        sums[f"add@{height}x{width}.count"] = 1.0
        sums[f"add@{height}x{width}.map_bytes"] = maps * _QUANTITIES["map_bytes"]
    return sums


def _types(op) -> tuple[str, ...]:
    if not isinstance(op, ConvOp):
        return ("squeeze_excite",)
    if op.depthwise:
        coarse = "depthwise"
    elif op.kernel_size == 1:
        return ("pointwise",)
    else:
        coarse = "full"
    return coarse, f"{coarse} {op.kernel_size}x{op.kernel_size} s{op.strides}"


def _quantities(placed: PlacedOp) -> dict[str, float]:
    op, pixels = placed.op, placed.out_size[0] * placed.out_size[1]
    if not isinstance(op, ConvOp):
        return {"count": 1, "madds": placed.madds, "map_bytes": 2 * pixels * op.channels}
    return {
        "count": 1,
        "madds": placed.madds,
        **{f"padded{lanes}_madds": pixels * _padded(op, lanes) for lanes in _LANES},
        "map_bytes": placed.in_size[0] * placed.in_size[1] * op.in_channels + pixels * op.out_channels,
        "weight_bytes": op.kernel_params,
    }


def _padded(op: ConvOp, lanes: int) -> int:
    """Multiply-adds a pixel, with widths rounded up to multiples of `lanes`."""
    inputs, outputs = (-(-c // lanes) * lanes for c in (op.in_channels, op.out_channels))
    return op.kernel_size**2 * (inputs if op.depthwise else inputs * outputs)


FEATURES = (LayerOneHot.name, OpSums.name)
