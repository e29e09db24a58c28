"""Initial shared weights with which all options of a layer compute nearly the same.

A step trains one option of each layer. Where the options start as unrelated functions, what one
has learnt is noise to the layers after it as soon as another is drawn, and a short search learns
next to nothing. Here options differ by little at first: a kernel acts through its middle pixel,
what lies between two 1x1 convolutions passes its channels on, and a layer that adds to its input
adds nothing (`bn_scale`; Goyal et al., arXiv 1706.02677, start residual blocks so).
Kernels are small, because what SGD moves in a kernel before a batch normalisation grows with one over its
squared norm (van Laarhoven, arXiv 1706.05350); a training alone starts with a deviation of 0.03.
After 80 steps of random networks on one batch, networks that were never drawn have AP50 0.85 to 1
on it; with a kernel for each size and a usual start 0.07 to 0.15 (`ibn`, 96 pixels).
"""

import math

from mobiledets_tf.architecture.ops import ConvOp, Op
from mobiledets_tf.compat import keras, tf

# Initial values by which options differ, as a part of usual ones.
_SMALL = 0.2
# All kernels, as a part of usual ones. After 480 steps the loss was 1.44 with 1, 1.13 with 0.15, and 1.57
# with 0.05, where the epsilon of the batch normalisation drowns them (`ibn_fused_tucker`, 160 pixels).
_SCALE = 0.15


class Small(keras.initializers.Initializer):
    """A small part of what another initialiser draws."""

    def __init__(self, usual: keras.initializers.Initializer):
        self._usual = usual

    def __call__(self, shape, dtype=None, **kwargs):
        return _SCALE * self._usual(shape, dtype, **kwargs)


class MiddlePixel(keras.initializers.Initializer):
    """Kernels [k, k, in, out]: He normal for a 1x1 convolution in the middle, little around it."""

    def __call__(self, shape, dtype=None, **kwargs):
        side, _, inputs, _ = shape
        around = _noise(shape, inputs)
        return around + _in_the_middle(tf.random.normal(shape[2:], stddev=math.sqrt(2.0 / inputs)), side)


class PassOn(keras.initializers.Initializer):
    """Kernels [k, k, in, out], or depthwise [k, k, channels, 1]: each channel as it is, and little else."""

    def __call__(self, shape, dtype=None, **kwargs):
        side, _, inputs, outputs = shape
        depthwise = outputs == 1
        same = tf.ones([inputs, 1]) if depthwise else tf.eye(inputs, outputs)
        return _noise(shape, 1 if depthwise else inputs) + _in_the_middle(same, side)


def _noise(shape, inputs: int) -> tf.Tensor:
    """A small part of a He normal kernel that sees so many channels; none for a 1x1 convolution."""
    if shape[0] == 1:
        return tf.zeros(shape)
    return tf.random.normal(shape, stddev=_SMALL * math.sqrt(2.0 / (shape[0] * shape[1] * inputs)))


def _in_the_middle(pixel: tf.Tensor, side: int) -> tf.Tensor:
    margin = side // 2
    return tf.pad(pixel[tf.newaxis, tf.newaxis], [[margin, margin], [margin, margin], [0, 0], [0, 0]])


def initializer(op: Op) -> keras.initializers.Initializer:
    """Of the kernel of an operation of a layer; a squeeze-excite has its own."""
    between = isinstance(op, ConvOp) and (op.depthwise or op.name == "conv")
    return Small(PassOn() if between else MiddlePixel())


def stem_initializer() -> keras.initializers.Initializer:
    """Of the stem's kernel."""
    return Small(keras.initializers.HeNormal())


def bn_scale(op: Op, residual: bool) -> float:
    """Initial scale of the BN of an operation of a layer."""
    return 0.0 if residual and op.name == "project" else 1.0
