"""Inverted bottleneck (IBN), with and without the expansion."""

from mobiledets_tf.architecture.specs import InvertedBottleneckNoExpansionSpec, InvertedBottleneckSpec
from mobiledets_tf.compat import keras
from mobiledets_tf.layers.base import TDBLayer


@keras.utils.register_keras_serializable(package="mobiledets")
class InvertedBottleneck(TDBLayer):
    """1x1 expansion -> depthwise -> (squeeze-excite) -> 1x1 linear projection.

    [b, h, w, c] -> [b, h/strides, w/strides, filters]. Source: MobileNetV2 (arXiv 1801.04381),
    as used in MobileDets.

    Args:
      filters: output channels.
      kernel_size, strides: of the depthwise convolution.
      residual: adds the input; needs strides 1 and c == filters.
      expansion: expanded width over input width, above 1.
      **kwargs: of `TDBLayer`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        residual: bool = False,
        expansion: int = 4,
        **kwargs,
    ):
        super().__init__(InvertedBottleneckSpec(filters, kernel_size, strides, residual, expansion), **kwargs)


@keras.utils.register_keras_serializable(package="mobiledets")
class InvertedBottleneckNoExpansion(TDBLayer):
    """Depthwise -> (squeeze-excite) -> 1x1 linear projection; the first block of CPU and DSP.

    Args: see `InvertedBottleneck`.
    """

    def __init__(
        self, filters: int, kernel_size: int = 3, strides: int = 1, residual: bool = False, **kwargs
    ):
        super().__init__(InvertedBottleneckNoExpansionSpec(filters, kernel_size, strides, residual), **kwargs)
