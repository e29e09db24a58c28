"""Two ways to run a network with shared weights; both give the same numbers.

`sliced` cuts the weights to the network: dynamic shapes, and only the work the network needs.
`masked` multiplies the weights outside the network by zero: static shapes, which XLA and so
TPUs ask for, and the work of the largest network. A channel that is masked out is exactly
zero everywhere: its kernel, scale and offset are, and all activations keep zero at zero.
"""

from typing import NamedTuple

from mobiledets_tf.architecture.ops import Op, SqueezeExciteOp
from mobiledets_tf.compat import tf
from mobiledets_tf.errors import unknown_name
from mobiledets_tf.models.banks import Bank, Extent, channel_mask, corner
from mobiledets_tf.models.shared_op import Tensors


class Taken(NamedTuple):
    """What a network holds of a bank.

    Attributes:
      rows: float32 [rows, row]; of `masked` all rows of the bank, zeros in the others' place.
      where: of `sliced` the rows' numbers, int32 [rows]; of `masked` a mask like `rows`.
    """

    rows: tf.Tensor
    where: tf.Tensor


class Sliced:
    """Cuts."""

    name = "sliced"
    static = False

    def take(self, bank: Bank, extents: list[Extent]) -> Taken:
        """The rows of a network, of the bank's tensors one after the other."""
        numbers = [
            tensor.row_numbers(extent.grid) for tensor, extent in zip(bank.tensors, extents, strict=True)
        ]
        numbers = tf.concat(numbers, 0)
        return Taken(tf.gather(bank.rows, numbers), numbers)

    def tensors(self, bank: Bank, rows: tf.Tensor, extents: list[Extent]) -> list[tf.Tensor]:
        """The tensors of a network out of its rows."""
        counts = tf.concat([extent.count for extent in extents], 0)
        parts = tf.split(rows, counts, num=len(extents))
        return [tf.reshape(part, extent.size) for part, extent in zip(parts, extents, strict=True)]

    def spread(self, bank: Bank, taken: Taken, values: tf.Tensor) -> tf.Tensor:
        """Values of a network's rows in the form of the whole bank, zeros in the others' place."""
        return tf.scatter_nd(taken.where[:, tf.newaxis], values, bank.rows.shape)

    def narrow(self, tensor: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Cuts a tensor further, to one option of a mix."""
        return tf.slice(tensor, corner(tf.shape(tensor), size), size)

    def of_op(self, op: Op, tensors: Tensors, channels: int | None) -> Tensors:
        """The tensors as an operation takes them; they have its size already."""
        return tensors


class Masked:
    """Masks."""

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
        """The tensors as an operation takes them: without the zeros that another option has weights for.

        Args:
          op: the operation.
          tensors: of its role.
          channels: of its input.
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
    """Raises InputError unless the name is `sliced` or `masked`."""
    if name not in EXECUTIONS:
        raise unknown_name("execution", name, EXECUTIONS)
    return EXECUTIONS[name]()
