"""Two ways to run a network with shared weights; both compute the same values.

`sliced` slices the shared weights to the size of the network: shapes are dynamic, and only the
network's own operations are computed. `masked` multiplies the weights outside the network by zero:
shapes are static, as XLA and therefore TPUs require, but every network costs as much as the largest
one. A masked channel is exactly zero everywhere, because its kernel, scale and offset are zero and
all activations map zero to zero.
"""

from typing import NamedTuple

from mobiledets_tf.architecture.ops import Op, SqueezeExciteOp
from mobiledets_tf.compat import tf
from mobiledets_tf.errors import unknown_name
from mobiledets_tf.models.banks import Bank, Extent, channel_mask, corner
from mobiledets_tf.models.shared_op import Tensors


class Taken(NamedTuple):
    """The part of a bank that a network uses.

    Attributes:
      rows: weights of the network, float32 [rows, row]; with `masked` execution all rows of the bank,
        with zeros outside the network.
      where: with `sliced` execution the numbers of the rows, int32 [rows]; with `masked` execution a
        mask of the same shape as `rows`.
    """

    rows: tf.Tensor
    where: tf.Tensor


class Sliced:
    """Runs a network by slicing the shared weights."""

    name = "sliced"
    static = False

    def take(self, bank: Bank, extents: list[Extent]) -> Taken:
        """Reads the rows of a network from a bank, one tensor of the bank after the other."""
        numbers = [
            tensor.row_numbers(extent.grid) for tensor, extent in zip(bank.tensors, extents, strict=True)
        ]
        numbers = tf.concat(numbers, 0)
        return Taken(tf.gather(bank.rows, numbers), numbers)

    def tensors(self, bank: Bank, rows: tf.Tensor, extents: list[Extent]) -> list[tf.Tensor]:
        """Splits and reshapes the rows of a network into its tensors."""
        counts = tf.concat([extent.count for extent in extents], 0)
        parts = tf.split(rows, counts, num=len(extents))
        return [tf.reshape(part, extent.size) for part, extent in zip(parts, extents, strict=True)]

    def spread(self, bank: Bank, taken: Taken, values: tf.Tensor) -> tf.Tensor:
        """Expands values of a network's rows to the shape of the whole bank, with zeros in other rows."""
        return tf.scatter_nd(taken.where[:, tf.newaxis], values, bank.rows.shape)

    def narrow(self, tensor: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Slices a tensor to the size of one option of a mix."""
        return tf.slice(tensor, corner(tf.shape(tensor), size), size)

    def of_op(self, op: Op, tensors: Tensors, channels: int | None) -> Tensors:
        """Returns the tensors unchanged: they already have the size that the operation needs."""
        return tensors


class Masked:
    """Runs a network by masking the shared weights; the methods are those of `Sliced`."""

    name = "masked"
    static = True

    def take(self, bank: Bank, extents: list[Extent]) -> Taken:
        masks = [tensor.mask(extent.size) for tensor, extent in zip(bank.tensors, extents, strict=True)]
        mask = tf.concat(masks, 0)
        return Taken(bank.rows * mask, mask)

    def tensors(self, bank: Bank, rows: tf.Tensor, extents: list[Extent]) -> list[tf.Tensor]:
        parts = tf.split(rows, [tensor.count for tensor in bank.tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, bank.tensors, strict=True)]

    def spread(self, bank: Bank, taken: Taken, values: tf.Tensor) -> tf.Tensor:
        return values * taken.where

    def narrow(self, tensor: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return tensor * channel_mask(tuple(tensor.shape), size)

    def of_op(self, op: Op, tensors: Tensors, channels: int | None) -> Tensors:
        """Slices off the zeros around an operation's weights, where other options have weights.

        Args:
          op: the operation.
          tensors: tensors of the operation's role in the layer.
          channels: number of input channels of the operation.
        """
        if isinstance(op, SqueezeExciteOp):
            return tensors
        kernel, *rest = tensors
        margin = (kernel.shape[0] - op.kernel_size) // 2
        middle = slice(margin, margin + op.kernel_size)
        return kernel[middle, middle, :channels], *rest


Execution = Sliced | Masked
EXECUTIONS = {mode.name: mode for mode in (Sliced, Masked)}


def get_execution(name: str) -> Execution:
    """Returns the execution of a name; raises InputError unless it is `sliced` or `masked`."""
    if name not in EXECUTIONS:
        raise unknown_name("execution", name, EXECUTIONS)
    return EXECUTIONS[name]()
