"""Flat detector with simulated int8 quantisation (tfmot) and the float detector's weight names.

Each layer is annotated with what is rounded, so that training sees the rounding of an int8 file:
kernels are rounded where they are read, activations where a fused int8 operation ends. The outputs of
the predictors are not rounded separately, because the concatenation needs one scale for all six maps,
which it derives from the range of its output.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensorflow_model_optimization.python.core.quantization.keras import quantize, quantize_layer, quantizers
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_registry,
    default_8bit_transforms,
)
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (
    model_transformer,
    transforms,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantize_config import QuantizeConfig
from tensorflow_model_optimization.python.core.quantization.keras.quantize_scheme import QuantizeScheme

from mobiledets_tf.compat import keras, tf
from mobiledets_tf.layers.activations import hard_swish

# With tfmot's own decay of 0.999, forgetting the initial range of [-6, 6] takes thousands of steps.
_RANGE_DECAY = 0.99
_KERNELS: dict[Any, str] = {keras.layers.Conv2D: "kernel", keras.layers.DepthwiseConv2D: "depthwise_kernel"}
# Layers whose int8 operation stores its output.
_STORED = (
    keras.layers.Add,
    keras.layers.Multiply,
    keras.layers.Concatenate,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.ReLU,
)


@dataclass(frozen=True)
class QuantizedDetector:
    """A detector that simulates the rounding of its int8 file.

    Attributes:
      network: functional model with the same input and outputs as that of `build_detector`.
      named_weights: canonical name -> variable, with the names and shapes of the float detector.
      ranges: `quant_<layer>/output_min:0` and `_max:0` -> variable with the observed range of an
        activation. Kernels and images need no such range.
    """

    network: keras.Model
    named_weights: Mapping[str, Any]
    ranges: Mapping[str, Any]


class ObservedRange(quantizers.MovingAverageQuantizer):
    """Rounds to 8 bits over a moving average of the range; the first training batch initialises it."""

    def __init__(self) -> None:
        super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, Any]:
        """Makes the two range variables; both are 0 until a range has been observed."""
        start = dict(initializer="zeros", trainable=False, aggregation=tf.VariableAggregation.MEAN)
        return {f"{end}_var": layer.add_weight(f"{name}_{end}", **start) for end in ("min", "max")}

    def __call__(self, inputs: tf.Tensor, training: Any, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        """Rounds the inputs; in training it updates the range first."""
        low, high = weights["min_var"], weights["max_var"]
        ends = low, high
        if training:
            # An int8 value has to represent 0 exactly, so every range has to include 0.
            observed = tf.minimum(tf.reduce_min(inputs), 0.0), tf.maximum(tf.reduce_max(inputs), 0.0)
            share = tf.where(tf.equal(low, high), 1.0, 1.0 - _RANGE_DECAY)
            ends = tuple(end + share * (now - end) for end, now in zip(ends, observed, strict=True))
            low.assign(ends[0])
            high.assign(ends[1])
        return tf.quantization.fake_quant_with_min_max_vars(inputs, *ends)

    def get_config(self) -> dict[str, Any]:
        return {}


class KernelRange(quantizers.Quantizer):
    """Rounds a kernel to 8 bits symmetrically over its current range."""

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, Any]:
        """Makes no variable, because the range is that of the kernel itself."""
        return {}

    def __call__(self, inputs: tf.Tensor, training: Any, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        """Rounds the kernel.

        A depthwise kernel [k, k, channels, 1] has a single scale because the converter accepts no others.
        """
        high = tf.stop_gradient(tf.reduce_max(tf.abs(inputs), axis=[0, 1, 2]))
        # The narrow range is -127 to 127, so that the zero of a symmetric kernel is in the middle.
        return tf.quantization.fake_quant_with_min_max_vars_per_channel(
            inputs, -high, high, narrow_range=True
        )

    def get_config(self) -> dict[str, Any]:
        return {}


class Int8(QuantizeConfig):
    """Defines which parts of a layer are rounded.

    Args:
      kernel: name of the layer's kernel, which is rounded per output channel, or None.
      output: whether the layer's output is rounded.
    """

    def __init__(self, kernel: str | None = None, output: bool = False):
        self.kernel, self.output = kernel, output

    def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[Any, Any]]:
        if self.kernel is None:
            return []
        return [(getattr(layer, self.kernel), KernelRange())]

    def set_quantize_weights(self, layer: keras.layers.Layer, quantize_weights: list) -> None:
        if self.kernel is not None:
            setattr(layer, self.kernel, quantize_weights[0])

    def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list:
        return []

    def set_quantize_activations(self, layer: keras.layers.Layer, quantize_activations: list) -> None:
        pass

    def get_output_quantizers(self, layer: keras.layers.Layer) -> list:
        return [ObservedRange()] if self.output else []

    def get_config(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "output": self.output}


class ImageRange(quantizers.Quantizer):
    """Rounds images over exactly [-1, 1], so that the uint8 input of a file accepts raw pixels."""

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, Any]:
        """Makes no variable, because the range is fixed."""
        return {}

    def __call__(self, inputs: tf.Tensor, training: Any, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        """Rounds the images."""
        return tf.quantization.fake_quant_with_min_max_args(inputs, -1.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {}


class _RoundImage(default_8bit_transforms.InputLayerQuantize):
    """Inserts a rounding layer after the input."""

    def replacement(self, match_layer: Any) -> Any:
        layer = quantize_layer.QuantizeLayer(ImageRange(), name="quant_image")
        config = keras.layers.serialize(layer, use_legacy_format=True)
        config["name"] = layer.name
        return transforms.LayerNode(config, input_layers=[match_layer])

    def custom_objects(self) -> dict[str, Any]:
        return {"QuantizeLayer": quantize_layer.QuantizeLayer, "ImageRange": ImageRange}


class _Scheme(QuantizeScheme):
    """Quantisation scheme in which tfmot transforms only the input; all other layers are annotated."""

    def get_layout_transformer(self) -> Any:
        return self

    def apply(self, model: keras.Model, layer_quantize_map: dict[str, Any]) -> Any:
        return model_transformer.ModelTransformer(
            model, [_RoundImage()], set(layer_quantize_map), layer_quantize_map
        ).transform()

    def get_quantize_registry(self) -> Any:
        return default_8bit_quantize_registry.Default8BitQuantizeRegistry()


def quantize_detector(detector: keras.Model) -> QuantizedDetector:
    """Builds a detector with simulated quantisation and the current weights of a float detector.

    The ranges of the result are empty: train a step or restore the ranges before evaluation.

    Args:
      detector: model made by `build_detector` for any architecture; it is not changed.
    """
    names = [weight.name for weight in detector.weights]
    with keras.utils.custom_object_scope({"Int8": Int8, "ImageRange": ImageRange}):
        annotated = keras.models.clone_model(
            detector,
            clone_function=lambda layer: quantize.quantize_annotate_layer(
                layer.__class__.from_config(layer.get_config()), _config(layer)
            ),
        )
        annotated.set_weights(detector.get_weights())
        network = quantize.quantize_apply(annotated, _Scheme())
    named = {weight.name: weight for weight in network.weights}
    ranges = {name: named[name] for name in named if name.endswith(("_min:0", "_max:0"))}
    return QuantizedDetector(network, {name: named[name] for name in names}, ranges)


def _config(layer: keras.layers.Layer) -> Int8:
    kernel = _KERNELS.get(type(layer))
    return Int8(kernel, output=isinstance(layer, _STORED) or _ends_an_operation(layer))


def _ends_an_operation(layer: keras.layers.Layer) -> bool:
    """Returns whether a convolution, BN or h-swish stores its result: no following layer fuses with it."""
    if isinstance(layer, keras.layers.Activation):
        # A sigmoid (LOGISTIC) is not rounded here because its output range is fixed.
        return layer.activation is hard_swish
    kinds: tuple[Any, ...] = (*_KERNELS, keras.layers.BatchNormalization)
    if not isinstance(layer, kinds):
        return False
    followers = [node.layer for node in layer.outbound_nodes]
    fused = (keras.layers.BatchNormalization, keras.layers.ReLU, keras.layers.Reshape)
    return not all(isinstance(follower, fused) for follower in followers)
