"""Features of networks for linear latency models.

`layer_one_hot` follows TuNAS's cost model. For each op position it has one indicator per combination of
input width, option and output width, and it adds indicators of the widths of C4 and C5, which the head
reads. Any cost that adds up over layers is exactly linear in these features.

`op_sums` are sums over all operations of the same type, kernel, stride and resolution: their number,
multiply-adds, multiply-adds with widths padded to multiples of 16, 32 and 64, bytes of feature maps and
bytes of weights. A few hundred measured networks suffice to fit their coefficients, whereas one-hot
features need thousands.
"""

import functools

import numpy as np

from mobiledets_tf.architecture.ops import ConvOp, Op, PlacedOp
from mobiledets_tf.architecture.specs import ENDPOINT_STRIDES, ENDPOINTS
from mobiledets_tf.latency.tables import layer_tables
from mobiledets_tf.search_space import SearchSpace, op_positions


class LayerOneHot:
    """One-hot features of decision vectors.

    The features are numbered in this order: the stem's width, the op positions, the widths of C4 and C5.

    Args:
      space: the search space.

    Attributes:
      space: the search space.
      positions: its op positions, in order.
      endpoints: indices of the decisions on the widths of C4 and C5.
      offsets: int64 [positions + 4]; first feature of each group and, last, the number of features.
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
        """Returns the indices of the features that are 1.

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
        """Sums the table entries of the active features of each network.

        The sum is computed one position at a time so that the working set stays in the CPU cache.

        Args:
          table: float64 [features].
          decisions: int [networks, decisions].

        Returns:
          float64 [networks].
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


def _filters_index(space: SearchSpace, block: int) -> int:
    paths = [path for path, _ in space.decisions]
    return paths.index(f"blocks/{block}/filters")


# Summed quantity -> its unit; a coefficient is the cost per unit.
_QUANTITIES = {
    "count": 1.0,
    "madds": 1e-6,
    "padded16_madds": 1e-6,
    "padded32_madds": 1e-6,
    "padded64_madds": 1e-6,
    "map_bytes": 2.0**-20,
    "weight_bytes": 2.0**-20,
}
# Accelerators process channels in multiples of the side of their compute array, CPUs in multiples of
# the length of a vector register.
_LANES = (16, 32, 64)


class OpSums:
    """Sums over operations, and the contribution of each decision to them.

    The coarse features are named `TYPE@HxW.QUANTITY`, where the type is pointwise, depthwise or full
    convolution, HxW the size of the output map and the quantity what is summed. The fine features are
    named `TYPE KxK sSTRIDE@HxW.QUANTITY`. Both are included because ridge regression relies on the
    coarse ones if there are few samples.

    Args:
      space: the search space.
      image_size: (height, width) in pixels.
      num_classes: number of classes without the background.
      head: `ssdlite`, or `none` for the backbone alone.

    Attributes:
      names: names of the features.
      rows: float64 [features of LayerOneHot, features]; what each one-hot feature adds to the sums.
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
        """Returns float64 [networks, features] for decisions given as int [networks, decisions]."""
        active = self._one_hot.active(np.asarray(decisions))
        total = np.zeros((len(active), len(self.names)))
        for column in active.T:
            total += self.rows[column]
        return total


@functools.lru_cache(maxsize=8)
def op_sums(space: SearchSpace, image_size: tuple[int, int], num_classes: int, head: str) -> OpSums:
    """Returns the `OpSums` of a search space from a cache."""
    return OpSums(space, image_size, num_classes, head)


def _sums(ops: list[PlacedOp], residual: bool) -> dict[str, float]:
    """Returns the contributions of one layer by feature name; all other features are zero."""
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


def _types(op: Op) -> tuple[str, ...]:
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
    """Returns the multiply-adds per pixel with widths rounded up to multiples of `lanes`."""
    inputs, outputs = (-(-c // lanes) * lanes for c in (op.in_channels, op.out_channels))
    return op.kernel_size**2 * (inputs if op.depthwise else inputs * outputs)


FEATURES = (LayerOneHot.name, OpSums.name)
