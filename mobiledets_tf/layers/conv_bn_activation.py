"""Convolution with BN and activation, as used in the stem."""

from typing import Any

from mobiledets_tf.architecture.specs import ConvSpec
from mobiledets_tf.compat import keras
from mobiledets_tf.layers.base import TDBLayer


@keras.utils.register_keras_serializable(package="mobiledets")
class ConvBNActivation(TDBLayer):
    """A full convolution with BN and activation; [b, h, w, c] -> [b, h/strides, w/strides, filters].

    Args:
      filters: output channels.
      kernel_size, strides: kernel size and stride of the convolution.
      residual: must be False; it exists so that all layers have the same constructor.
      **kwargs: arguments of `TDBLayer`.
    """

    def __init__(
        self, filters: int, kernel_size: int = 3, strides: int = 1, residual: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(ConvSpec(filters, kernel_size, strides, residual), **kwargs)
