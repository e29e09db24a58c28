"""Where shared weights are kept: tensors at their largest size, as rows in a few variables.

A tensor is cut into rows of channels. A row is as long as the greatest common divisor of all
sampled widths, so every network holds whole rows. Kernels with rows of one length lie in one
variable, a bank, and so do the other tensors: a step reads and writes a few banks in place of a
thousand tensors. Rows are read by gather and written by scatter: TensorFlow copies the whole
variable at each read once a part of it has been assigned by slices.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mobiledets_tf.compat import tf


class Extent(NamedTuple):
    """What a network holds of a shared tensor.

    Attributes:
      size: int32 [rank], its shape; zeros where the network lacks it.
      grid: int32 [sides], its rows along each side.
      count: int32 [1], its rows.
    """

    size: tf.Tensor
    grid: tf.Tensor
    count: tf.Tensor


class SharedTensor:
    """One tensor at its largest size; its values are in a bank.

    Args:
      label: unique in the supernet; its last part says what it is (`kernel`, `bias`, ...).
      value: float32, of the largest shape; initial.
      sizes: int32 [..., rank], the shapes in all networks; zeros where one lacks it.
    """

    def __init__(self, label: str, value: tf.Tensor, sizes: np.ndarray):
        self.label = label
        self.shape = tuple(int(side) for side in value.shape)
        self.value = value
        # A depthwise kernel's channels are its last dimension but one.
        self._sides = len(self.shape) - (len(self.shape) == 4 and self.shape[-1] == 1)
        widths = np.unique(np.append(sizes[..., self._sides - 1], self.shape[self._sides - 1]))
        self.row = math.gcd(*(int(width) for width in widths))
        grids = self._grid(sizes)
        # The extents in all networks, side by side; int32 [..., sum of `columns`].
        self.table = np.concatenate([sizes, grids, np.prod(grids, -1, keepdims=True)], -1).astype(np.int32)
        self.columns = (len(self.shape), self._sides, 1)
        self.count = int(np.prod(self._grid(np.array(self.shape))))

    def _grid(self, sizes: np.ndarray) -> np.ndarray:
        grids = np.array(sizes[..., : self._sides])
        grids[..., -1] //= self.row
        return grids

    @property
    def is_kernel(self) -> bool:
        """Whether L2 acts on it."""
        return self.label.endswith("kernel")

    def put(self, bank: "Bank", first: int) -> None:
        """Tells it where it is kept: in the rows of a bank from `first` on."""
        self._bank, self._first, self.value = bank, first, None
        numbers = np.arange(first, first + self.count, dtype=np.int32)
        self._numbers = tf.constant(numbers.reshape(self._grid(np.array(self.shape))))

    def row_numbers(self, grid: tf.Tensor) -> tf.Tensor:
        """The rows of its bank that a network reads; int32 [rows]."""
        return tf.reshape(tf.slice(self._numbers, corner(self._numbers.shape.as_list(), grid), grid), [-1])

    def full(self) -> tf.Tensor:
        """The whole tensor."""
        rows = tf.gather(self._bank.rows, tf.range(self._first, self._first + self.count))
        return tf.reshape(rows, self.shape)

    def view(self, rows: np.ndarray) -> np.ndarray:
        """The whole tensor inside a copy of its bank's rows; writing to it changes the copy."""
        return rows[self._first : self._first + self.count].reshape(self.shape)

    def mask(self, size: tf.Tensor) -> tf.Tensor:
        """1 where a network of a size has weights, else 0; in the form of rows."""
        mask = tf.broadcast_to(channel_mask(self.shape, size), self.shape)
        return tf.reshape(mask, [self.count, self.row])


def channel_mask(shape: tuple[int, ...], size: tf.Tensor) -> tf.Tensor:
    """1 where a network of a size has weights in a tensor of a shape, else 0; see `corner`.

    Args:
      shape: of the whole tensor; the sides of kernels are odd.
      size: int32 [rank], of the part; all odd or all 0 along a kernel's sides.
    """
    sizes, lines = tf.unstack(size, len(shape)), []
    for axis in [axis for axis, side in enumerate(shape) if side > 1] or [0]:
        place = np.arange(shape[axis], dtype=np.int32)
        # A part larger than this holds the place.
        beyond = abs(2 * place + 1 - shape[axis]) if axis < _kernel_sides(len(shape)) else place
        lines.append(beyond.reshape([-1 if axis == i else 1 for i in range(len(shape))]) < sizes[axis])
    return tf.cast(functools.reduce(tf.logical_and, lines), tf.float32)


def corner(shape: Sequence[int] | tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Where a network's part of a tensor begins: a small kernel is the middle of a large one.

    Args:
      shape: [rank], of the whole tensor; ranks of 3 and more begin with a kernel's two sides.
      size: int32 [rank], of the part, which has the first of all channels.
    """
    whole = tf.convert_to_tensor(shape, tf.int32)
    rank = whole.shape[0]
    sides = np.arange(rank) < _kernel_sides(rank)
    return (whole - size) // 2 * sides.astype(np.int32)


def _kernel_sides(rank: int) -> int:
    """How many dimensions are a kernel's sides; they come first."""
    return 2 if rank > 2 else 0


class Bank(tf.Module):
    """All kernels, or all other tensors, with rows of one length.

    Attributes:
      label: unique in a supernet.
      rows: float32 variable [rows, row].
      tensors: in the order in which they lie there.
      is_kernel: whether L2 acts on it.
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
    """Puts every tensor into a bank; the order of banks is that of their rows' lengths."""
    kinds: dict[tuple[int, bool], list[SharedTensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.row, tensor.is_kernel), []).append(tensor)
    return [Bank(*kind, kinds[kind]) for kind in sorted(kinds)]
