"""Squeeze-excite as a separate Keras layer."""

from typing import Any

from mobiledets_tf.architecture.ops import SqueezeExciteOp
from mobiledets_tf.architecture.specs import scale_filters
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.layers.base import SqueezeExciteChain


@keras.utils.register_keras_serializable(package="mobiledets")
class SqueezeExcite(keras.layers.Layer):
    """Channel gate: mean -> 1x1 -> activation -> 1x1 -> sigmoid -> multiply; the shape is unchanged.

    Source: arXiv 1709.01507, with the ordinary sigmoid and biases of MobileDet-CPU.

    Args:
      se_ratio: ratio of hidden width to input width; the hidden width is rounded half up to a multiple of 8.
      activation: activation of the hidden layer.
      **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, se_ratio: float = 0.25, activation: str = "hard_swish", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.se_ratio = se_ratio
        self.activation = activation

    def build(self, input_shape: Any) -> None:
        channels = int(input_shape[-1])
        op = SqueezeExciteOp(channels, scale_filters(channels, self.se_ratio), self.activation)
        self._chain = SqueezeExciteChain(op, self.name, self.dtype_policy)
        self._sublayers = self._chain.layers
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self._chain(inputs)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"se_ratio": self.se_ratio, "activation": self.activation}
