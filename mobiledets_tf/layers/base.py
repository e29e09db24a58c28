"""Conversion of the operations of `architecture.ops` to Keras layers.

A `TDBLayer` is a Keras layer of the TDB space. Its `call` and its `flat` run the same chain
of plain Keras layers: `call` inside the composite layer, `flat` directly on a symbolic tensor,
so that the functional model contains only plain layers, as quantisation requires.
"""

import dataclasses
from typing import Any

from mobiledets_tf.architecture.ops import ConvOp, Op, SqueezeExciteOp, lower
from mobiledets_tf.architecture.specs import LayerSpec
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.layers.activations import activation_layer
from mobiledets_tf.layers.initializers import DepthwiseHeNormal


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """Settings of a batch normalisation."""

    momentum: float
    epsilon: float


# The TF1 extractor uses decay 0.99 and epsilon 0.01 in the backbone, the sample configs 0.97 and 0.001 in
# the head.
BACKBONE_NORM = BatchNorm(0.99, 0.01)
HEAD_NORM = BatchNorm(0.97, 0.001)


def conv_layers(
    op: ConvOp,
    name: str,
    norm: BatchNorm,
    kernel_initializer: Any = "he_normal",
    depthwise_initializer: Any = None,
    bias_initializer: Any = "zeros",
    dtype: Any = None,
) -> list[keras.layers.Layer]:
    """Makes the plain Keras layers of one convolution, followed by its BN and activation if it has them.

    Args:
      op: the convolution.
      name: name of the convolution layer; BN and activation append `_bn` and `_act`.
      norm: BN settings.
      kernel_initializer: initialiser of a full convolution's kernel.
      depthwise_initializer: initialiser of a depthwise kernel; by default `DepthwiseHeNormal`.
      bias_initializer: initialiser of the bias, which a convolution without BN has.
      dtype: data type or policy of every layer; by default the global policy.
    """
    common = dict(strides=op.strides, padding="same", use_bias=not op.batch_norm, name=name, dtype=dtype)
    if op.depthwise:
        initializer = depthwise_initializer or DepthwiseHeNormal()
        layers = [keras.layers.DepthwiseConv2D(op.kernel_size, depthwise_initializer=initializer, **common)]
    else:
        layers = [
            keras.layers.Conv2D(
                op.out_channels,
                op.kernel_size,
                kernel_initializer=kernel_initializer,
                bias_initializer=bias_initializer,
                **common,
            )
        ]
    if op.batch_norm:
        layers.append(
            keras.layers.BatchNormalization(
                momentum=norm.momentum, epsilon=norm.epsilon, name=f"{name}_bn", dtype=dtype
            )
        )
    if op.activation:
        layers.append(activation_layer(op.activation, f"{name}_act", dtype))
    return layers


class SqueezeExciteChain:
    """The plain layers of a squeeze-excite; calling it applies them."""

    def __init__(self, op: SqueezeExciteOp, name: str, dtype: Any = None):
        conv = {"kernel_size": 1, "kernel_initializer": "he_normal", "dtype": dtype}
        self.layers = [
            keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean", dtype=dtype),
            keras.layers.Conv2D(op.hidden, name=f"{name}_reduce", **conv),
            activation_layer(op.activation, f"{name}_reduce_act", dtype),
            keras.layers.Conv2D(op.channels, name=f"{name}_expand", **conv),
            keras.layers.Activation("sigmoid", name=f"{name}_gate", dtype=dtype),
        ]
        self._multiply = keras.layers.Multiply(name=f"{name}_scale", dtype=dtype)

    def __call__(self, x: tf.Tensor, **kwargs: Any) -> tf.Tensor:
        gate = x
        for layer in self.layers:
            gate = layer(gate)
        return self._multiply([x, gate])


class TDBLayer(keras.layers.Layer):
    """Base class of the layers of the TDB search space.

    Input and output are float tensors [batch, height, width, channels].

    Args:
      spec: spec of the layer.
      activation: inner activation, `relu6` or `hard_swish`.
      se_ratio: squeeze-excite ratio after a depthwise convolution, or None.
      bn_momentum, bn_epsilon: settings of every BN inside the layer.
      **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        spec: LayerSpec,
        activation: str = "relu6",
        se_ratio: float | None = None,
        bn_momentum: float = BACKBONE_NORM.momentum,
        bn_epsilon: float = BACKBONE_NORM.epsilon,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.activation = activation
        self.se_ratio = se_ratio
        self.norm = BatchNorm(bn_momentum, bn_epsilon)
        self._chain: list[Any] = []
        self._add = None

    def build(self, input_shape: Any) -> None:
        if not self._chain:
            self._make_chain(int(input_shape[-1]))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self._run(inputs, training=training)

    def flat(self, inputs: tf.Tensor) -> tf.Tensor:
        """Applies the layer's plain Keras layers to a symbolic tensor of a functional model.

        Their names are `<name>_<role>`. The weights belong to the plain layers; use a new
        object for each position in a model.
        """
        self._make_chain(int(inputs.shape[-1]))
        return self._run(inputs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() | dataclasses.asdict(self.spec)
        config |= {"activation": self.activation, "se_ratio": self.se_ratio}
        return config | {"bn_momentum": self.norm.momentum, "bn_epsilon": self.norm.epsilon}

    def _make_chain(self, in_channels: int) -> None:
        self._chain = [self._make(op) for op in lower(self.spec, in_channels, self.activation, self.se_ratio)]
        # Keras finds sublayers in attributes and lists of layers, not inside helper objects.
        self._sublayers = [layer for part in self._chain for layer in _layers_of(part)]
        if self.spec.residual:
            self._add = keras.layers.Add(name=f"{self.name}_add", dtype=self.dtype_policy)
        # Keras passes `trainable` only to sublayers that exist when it is set. These are made later, and
        # a frozen BN that is still marked as trainable would update its statistics.
        for layer in self._sublayers:
            layer.trainable = self.trainable

    def _make(self, op: Op) -> Any:
        name = f"{self.name}_{op.name}"
        if isinstance(op, SqueezeExciteOp):
            return SqueezeExciteChain(op, name, self.dtype_policy)
        return conv_layers(op, name, self.norm, dtype=self.dtype_policy)

    def _run(self, inputs: tf.Tensor, **kwargs: Any) -> tf.Tensor:
        x = inputs
        for part in self._chain:
            x = part(x) if isinstance(part, SqueezeExciteChain) else apply_layers(part, x, **kwargs)
        return x if self._add is None else self._add([inputs, x])


def apply_layers(layers: list[keras.layers.Layer], x: tf.Tensor, **kwargs: Any) -> tf.Tensor:
    """Calls layers one after another; keyword arguments such as `training` are passed only to BN."""
    for layer in layers:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        x = layer(x, **kwargs) if is_norm else layer(x)
    return x


def _layers_of(part: Any) -> list[keras.layers.Layer]:
    return [*part.layers, part._multiply] if isinstance(part, SqueezeExciteChain) else part
