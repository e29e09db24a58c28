"""Two ways to run a network with shared weights; both give the same numbers.

`sliced` cuts the weights to the network: dynamic shapes, and only the work the network needs.
`masked` multiplies the weights outside the network by zero: static shapes, which XLA and so
TPUs ask for, and the work of the largest network. A channel that is masked out is exactly
zero everywhere: its kernel, scale and offset are, and all activations keep zero at zero.
"""

from mobiledets_tf.compat import tf
from mobiledets_tf.errors import unknown_name
from mobiledets_tf.models.shared_op import Tensors
from mobiledets_tf.models.shared_weights import SharedOp, SharedTensor, channel_mask

# The shapes of an operation's tensors in one network.
Sizes = list[tf.Tensor]


class Sliced:
    """Cuts."""

    name = "sliced"
    static = False

    def take(self, op: SharedOp, sizes: Sizes) -> Tensors:
        """The tensors of an operation in a network."""
        return tuple(
            tensor.gather(tensor.row_numbers(size), size)
            for tensor, size in zip(op.tensors, sizes, strict=True)
        )

    def narrow(self, tensor: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Cuts a taken tensor further, to one option of a mix."""
        return tf.slice(tensor, [0] * tensor.shape.rank, size)

    def gradient(self, shared: SharedTensor, gradient: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """The gradient of a taken tensor in the form of the whole one's rows."""
        return shared.pad(gradient, size)


class Masked:
    """Masks."""

    name = "masked"
    static = True

    def take(self, op: SharedOp, sizes: Sizes) -> Tensors:
        return tuple(
            shared.full() * shared.mask(size) for shared, size in zip(op.tensors, sizes, strict=True)
        )

    def narrow(self, tensor: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return tensor * channel_mask(tuple(tensor.shape), size)

    def gradient(self, shared: SharedTensor, gradient: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return tf.reshape(gradient * shared.mask(size), shared.rows.shape)


Execution = Sliced | Masked
EXECUTIONS = {mode.name: mode for mode in (Sliced, Masked)}


def get_execution(name: str) -> Execution:
    """Raises InputError unless the name is `sliced` or `masked`."""
    if name not in EXECUTIONS:
        raise unknown_name("execution", name, EXECUTIONS)
    return EXECUTIONS[name]()
