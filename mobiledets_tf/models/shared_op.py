"""Operations of the supernet, computed with the tensors of one network.

Batch normalisation uses the statistics of the batch, because the search keeps no moving averages.
"""

from mobiledets_tf.architecture.ops import Op, SqueezeExciteOp
from mobiledets_tf.compat import tf
from mobiledets_tf.layers import BatchNorm
from mobiledets_tf.layers.activations import hard_swish

# The tensors of an operation in order: the kernel, then BN's scale and offset [2, channels] or the bias;
# a squeeze-excite has two kernels and two biases.
Tensors = tuple[tf.Tensor, ...]


def run(op: Op, norm: BatchNorm, x: tf.Tensor, tensors: Tensors) -> tf.Tensor:
    """Runs an operation; its widths are those of the tensors, not those in `op`.

    Args:
      op: the operation.
      norm: BN settings.
      x: input, float32 [batch, height, width, channels].
      tensors: weights of the operation; see `Tensors`.
    """
    if isinstance(op, SqueezeExciteOp):
        return _squeeze_excite(op, x, *tensors)
    kernel, scale_offset_or_bias = tensors
    if op.depthwise:
        x = tf.nn.depthwise_conv2d(x, kernel, [1, op.strides, op.strides, 1], "SAME")
    else:
        x = tf.nn.conv2d(x, kernel, op.strides, "SAME")
    if not op.batch_norm:
        return _activate(x + scale_offset_or_bias, op.activation)
    scale, offset = tf.unstack(scale_offset_or_bias, num=2)
    normalised = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=[],
        variance=[],
        epsilon=norm.epsilon,
        is_training=True,
    )
    return _activate(normalised.y, op.activation)


def _squeeze_excite(
    op: SqueezeExciteOp,
    x: tf.Tensor,
    reduce_kernel: tf.Tensor,
    reduce_bias: tf.Tensor,
    expand_kernel: tf.Tensor,
    expand_bias: tf.Tensor,
) -> tf.Tensor:
    gate = tf.reduce_mean(x, [1, 2], keepdims=True)
    gate = _activate(tf.nn.conv2d(gate, reduce_kernel, 1, "SAME") + reduce_bias, op.activation)
    return x * tf.sigmoid(tf.nn.conv2d(gate, expand_kernel, 1, "SAME") + expand_bias)


def _activate(x: tf.Tensor, activation: str | None) -> tf.Tensor:
    if activation is None:
        return x
    return {"relu6": tf.nn.relu6, "hard_swish": hard_swish}[activation](x)
