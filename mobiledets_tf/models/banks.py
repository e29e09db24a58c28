"""Storage of shared weights: tensors at their largest size, as rows in a few variables called banks.

A tensor is divided into rows of channels. The length of a row is the greatest common divisor of all
sampled widths, so every network uses whole rows. All kernels with rows of the same length are stored
in one bank, and all other tensors with rows of the same length in another. A step thus reads and
writes a few banks instead of a thousand tensors. Rows are read by gather and written by scatter,
because TensorFlow copies the whole variable at each read once a part of it has been assigned by slices.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mobiledets_tf.compat import tf


class Extent(NamedTuple):
    """The part of a shared tensor that a network uses.

    Attributes:
      size: shape of the part, int32 [rank]; zeros if the network does not use the tensor.
      grid: number of rows along each side, int32 [sides].
      count: number of rows, int32 [1].
    """

    size: tf.Tensor
    grid: tf.Tensor
    count: tf.Tensor


class SharedTensor:
    """One tensor at its largest size; its values are stored in a bank.

    Args:
      label: unique name in the supernet; its last part is the role of the tensor (`kernel`, `bias`, ...).
      value: initial value with the largest shape, float32.
      sizes: shape in each network, int32 [..., rank]; zeros for a network that does not use the tensor.
    """

    def __init__(self, label: str, value: tf.Tensor, sizes: np.ndarray):
        self.label = label
        self.shape = tuple(int(side) for side in value.shape)
        self.value = value
        # The channels of a depthwise kernel are in its second-to-last dimension.
        self._sides = len(self.shape) - (len(self.shape) == 4 and self.shape[-1] == 1)
        widths = np.unique(np.append(sizes[..., self._sides - 1], self.shape[self._sides - 1]))
        self.row = math.gcd(*(int(width) for width in widths))
        grids = self._grid(sizes)
        # The extents in all networks, with their three parts concatenated; int32 [..., sum of `columns`].
        self.table = np.concatenate([sizes, grids, np.prod(grids, -1, keepdims=True)], -1).astype(np.int32)
        self.columns = (len(self.shape), self._sides, 1)
        self.count = int(np.prod(self._grid(np.array(self.shape))))

    def _grid(self, sizes: np.ndarray) -> np.ndarray:
        grids = np.array(sizes[..., : self._sides])
        grids[..., -1] //= self.row
        return grids

    @property
    def is_kernel(self) -> bool:
        """Whether the tensor is a kernel, on which L2 acts."""
        return self.label.endswith("kernel")

    def put(self, bank: "Bank", first: int) -> None:
        """Assigns the tensor its rows in a bank, from row `first` on."""
        self._bank, self._first, self.value = bank, first, None
        numbers = np.arange(first, first + self.count, dtype=np.int32)
        self._numbers = tf.constant(numbers.reshape(self._grid(np.array(self.shape))))

    def row_numbers(self, grid: tf.Tensor) -> tf.Tensor:
        """Returns the numbers of the bank's rows that a network reads; int32 [rows]."""
        return tf.reshape(tf.slice(self._numbers, corner(self._numbers.shape.as_list(), grid), grid), [-1])

    def full(self) -> tf.Tensor:
        """Reads the whole tensor."""
        rows = tf.gather(self._bank.rows, tf.range(self._first, self._first + self.count))
        return tf.reshape(rows, self.shape)

    def view(self, rows: np.ndarray) -> np.ndarray:
        """Returns a view of the whole tensor in a copy of its bank's rows; writing to it changes the copy."""
        return rows[self._first : self._first + self.count].reshape(self.shape)

    def mask(self, size: tf.Tensor) -> tf.Tensor:
        """Returns the `channel_mask` for a part of this size in the form of rows; float32 [rows, row]."""
        mask = tf.broadcast_to(channel_mask(self.shape, size), self.shape)
        return tf.reshape(mask, [self.count, self.row])


def channel_mask(shape: tuple[int, ...], size: tf.Tensor) -> tf.Tensor:
    """Returns a mask of a network's part of a tensor: 1 inside the part, otherwise 0; see `corner`.

    Args:
      shape: shape of the whole tensor; kernel sizes are odd.
      size: shape of the part, int32 [rank]; the kernel sizes are all odd or all 0.
    """
    sizes, lines = tf.unstack(size, len(shape)), []
    for axis in [axis for axis, side in enumerate(shape) if side > 1] or [0]:
        place = np.arange(shape[axis], dtype=np.int32)
        # A place belongs to the part if the size of the part is larger than this value.
        beyond = abs(2 * place + 1 - shape[axis]) if axis < _kernel_sides(len(shape)) else place
        lines.append(beyond.reshape([-1 if axis == i else 1 for i in range(len(shape))]) < sizes[axis])
    return tf.cast(functools.reduce(tf.logical_and, lines), tf.float32)


def corner(shape: Sequence[int] | tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns where a network's part of a tensor begins; a small kernel is the middle of a large one.

    Args:
      shape: shape of the whole tensor, [rank]; with a rank of 3 or more, the first two dimensions are
        those of a kernel.
      size: shape of the part, int32 [rank]; the part uses the first channels.
    """
    whole = tf.convert_to_tensor(shape, tf.int32)
    rank = whole.shape[0]
    sides = np.arange(rank) < _kernel_sides(rank)
    return (whole - size) // 2 * sides.astype(np.int32)


def _kernel_sides(rank: int) -> int:
    """Returns the number of leading dimensions that are the spatial sides of a kernel."""
    return 2 if rank > 2 else 0


class Bank(tf.Module):
    """All kernels, or all other tensors, whose rows have the same length.

    Attributes:
      label: unique name in a supernet.
      rows: float32 variable [rows, row].
      tensors: tensors stored in the bank, in the order of their rows.
      is_kernel: whether the bank contains kernels, on which L2 acts.
    """

    def __init__(self, row: int, is_kernel: bool, tensors: list[SharedTensor]):
        super().__init__(name=None)
        self.label = f"{'kernels' if is_kernel else 'others'}_{row}"
        self.row, self.is_kernel, self.tensors = row, is_kernel, tensors
        values = [np.reshape(tensor.value, [-1, row]) for tensor in tensors]
        self.rows = tf.Variable(np.concatenate(values), name=self.label)
        first = 0
        for tensor in tensors:
            tensor.put(self, first)
            first += tensor.count


def make_banks(tensors: Iterable[SharedTensor]) -> list[Bank]:
    """Puts every tensor into a bank; banks are sorted by the length of their rows."""
    kinds: dict[tuple[int, bool], list[SharedTensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.row, tensor.is_kernel), []).append(tensor)
    return [Bank(*kind, kinds[kind]) for kind in sorted(kinds)]
