"""Activations of the published networks, as plain Keras layers."""

from typing import Any

from mobiledets_tf.compat import keras, tf


@keras.utils.register_keras_serializable(package="mobiledets")
def hard_swish(x: tf.Tensor) -> tf.Tensor:
    """Returns x * relu6(x + 3) / 6 (MobileNetV3, arXiv 1905.02244); any shape, float dtype kept.

    The expression is written so that the TFLite converter recognises it as one HARD_SWISH.
    """
    return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


def activation_layer(activation: str, name: str, dtype: Any = None) -> keras.layers.Layer:
    """Returns a Keras layer for an activation of an architecture: `relu6` or `hard_swish`."""
    if activation == "relu6":
        return keras.layers.ReLU(6.0, name=name, dtype=dtype)
    return keras.layers.Activation({"hard_swish": hard_swish}[activation], name=name, dtype=dtype)
