"""Inverted bottleneck (IBN) layers with and without expansion."""

from typing import Any

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
      kernel_size, strides: kernel size and stride of the depthwise convolution.
      residual: whether the input is added to the output; requires strides 1 and c == filters.
      expansion: ratio of expanded width to input width, above 1.
      **kwargs: arguments of `TDBLayer`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        residual: bool = False,
        expansion: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(InvertedBottleneckSpec(filters, kernel_size, strides, residual, expansion), **kwargs)


@keras.utils.register_keras_serializable(package="mobiledets")
class InvertedBottleneckNoExpansion(TDBLayer):
    """Depthwise -> (squeeze-excite) -> 1x1 linear projection, as in the first block of CPU and DSP.

    Args: see `InvertedBottleneck`.
    """

    def __init__(
        self, filters: int, kernel_size: int = 3, strides: int = 1, residual: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(InvertedBottleneckNoExpansionSpec(filters, kernel_size, strides, residual), **kwargs)
