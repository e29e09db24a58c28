"""Fused inverted bottleneck layer."""

from typing import Any

from mobiledets_tf.architecture.specs import FusedInvertedBottleneckSpec
from mobiledets_tf.compat import keras
from mobiledets_tf.layers.base import TDBLayer


@keras.utils.register_keras_serializable(package="mobiledets")
class FusedInvertedBottleneck(TDBLayer):
    """Full kxk convolution to the expanded width -> 1x1 linear projection.

    [b, h, w, c] -> [b, h/strides, w/strides, filters]. The expansion and the depthwise
    convolution of an IBN are merged into one full convolution (MobileDets, section 3).

    Args:
      filters: output channels.
      kernel_size, strides: kernel size and stride of the full convolution.
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
        super().__init__(
            FusedInvertedBottleneckSpec(filters, kernel_size, strides, residual, expansion), **kwargs
        )
