"""The flat detector with simulated int8 quantisation (tfmot), under the float detector's weight names.

Where values are rounded is said layer by layer, so that training sees what an int8 file does:
kernels where they are read, activations where a fused int8 operation ends. The ends of the
predictors are not rounded on their own: concatenation needs one scale for all six maps, and
gets it from the range of its output.
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

# tfmot's own 0.999 starts at [-6, 6] and needs thousands of steps to forget it.
_RANGE_DECAY = 0.99
_KERNELS = {keras.layers.Conv2D: "kernel", keras.layers.DepthwiseConv2D: "depthwise_kernel"}
# Their int8 operations end in a value that is stored.
_STORED = (keras.layers.Add, keras.layers.Multiply, keras.layers.Concatenate,
           keras.layers.GlobalAveragePooling2D, keras.layers.ReLU)  # fmt: skip


@dataclass(frozen=True)
class QuantizedDetector:
    """A detector that rounds as its int8 file will.

    Attributes:
      network: functional model; input and outputs as those of `build_detector`.
      named_weights: canonical name -> variable; the names and shapes of the float detector.
      ranges: `quant_<layer>/output_min:0` and `_max:0` -> variable: the observed ranges of
        activations. Kernels and images need none.
    """

    network: keras.Model
    named_weights: Mapping[str, Any]
    ranges: Mapping[str, Any]


class ObservedRange(quantizers.MovingAverageQuantizer):
    """Rounds to 8 bits over a moving range that the first training batch sets."""

    def __init__(self):
        super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)

    def build(self, tensor_shape, name, layer):
        """Makes the two range variables; 0 and 0 say that nothing was observed yet."""
        start = dict(initializer="zeros", trainable=False, aggregation=tf.VariableAggregation.MEAN)
        return {f"{end}_var": layer.add_weight(f"{name}_{end}", **start) for end in ("min", "max")}

    def __call__(self, inputs, training, weights, **kwargs):
        """Rounds; in training, moves the range first."""
        low, high = weights["min_var"], weights["max_var"]
        ends = low, high
        if training:
            # An int8 zero has to stand for exactly 0, so that 0 lies in every range.
            observed = tf.minimum(tf.reduce_min(inputs), 0.0), tf.maximum(tf.reduce_max(inputs), 0.0)
            share = tf.where(tf.equal(low, high), 1.0, 1.0 - _RANGE_DECAY)
            ends = tuple(end + share * (now - end) for end, now in zip(ends, observed, strict=True))
            low.assign(ends[0])
            high.assign(ends[1])
        return tf.quantization.fake_quant_with_min_max_vars(inputs, *ends)

    def get_config(self):
        return {}


class KernelRange(quantizers.Quantizer):
    """Rounds a kernel to 8 bits, symmetrically, over the range that it has."""

    def build(self, tensor_shape, name, layer):
        """Makes no variable: the range is the kernel's own."""
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        """Rounds. A depthwise kernel [k, k, channels, 1] has one scale: the converter takes no others."""
        high = tf.stop_gradient(tf.reduce_max(tf.abs(inputs), axis=[0, 1, 2]))
        # -127 to 127: the zero of a symmetric kernel is in the middle.
        return tf.quantization.fake_quant_with_min_max_vars_per_channel(
            inputs, -high, high, narrow_range=True
        )

    def get_config(self):
        return {}


class Int8(QuantizeConfig):
    """What of a layer is rounded.

    Args:
      kernel: name of the layer's kernel, rounded per output channel; or None.
      output: whether the layer's output is rounded.
    """

    def __init__(self, kernel: str | None = None, output: bool = False):
        self.kernel, self.output = kernel, output

    def get_weights_and_quantizers(self, layer):
        if self.kernel is None:
            return []
        return [(getattr(layer, self.kernel), KernelRange())]

    def set_quantize_weights(self, layer, quantize_weights):
        if self.kernel is not None:
            setattr(layer, self.kernel, quantize_weights[0])

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return [ObservedRange()] if self.output else []

    def get_config(self):
        return {"kernel": self.kernel, "output": self.output}


class ImageRange(quantizers.Quantizer):
    """Rounds images over exactly [-1, 1], so that a file's uint8 input takes raw pixels."""

    def build(self, tensor_shape, name, layer):
        """Makes no variable."""
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        """Rounds."""
        return tf.quantization.fake_quant_with_min_max_args(inputs, -1.0, 1.0)

    def get_config(self):
        return {}


class _RoundImage(default_8bit_transforms.InputLayerQuantize):
    """Puts a layer that rounds behind the input."""

    def replacement(self, match_layer):
        layer = quantize_layer.QuantizeLayer(ImageRange(), name="quant_image")
        config = keras.layers.serialize(layer, use_legacy_format=True)
        config["name"] = layer.name
        return transforms.LayerNode(config, input_layers=[match_layer])

    def custom_objects(self):
        return {"QuantizeLayer": quantize_layer.QuantizeLayer, "ImageRange": ImageRange}


class _Scheme(QuantizeScheme):
    """Only the input's rounding is left to tfmot; everything else is annotated."""

    def get_layout_transformer(self):
        return self

    def apply(self, model, layer_quantize_map):
        return model_transformer.ModelTransformer(
            model, [_RoundImage()], set(layer_quantize_map), layer_quantize_map
        ).transform()

    def get_quantize_registry(self):
        return default_8bit_quantize_registry.Default8BitQuantizeRegistry()


def quantize_detector(detector: keras.Model) -> QuantizedDetector:
    """A detector with simulated quantisation and the float detector's present weights.

    Args:
      detector: of `build_detector`, any architecture; unchanged.

    Ranges are empty: train a step, or restore them, before evaluating.
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
    """Whether a convolution, BN or h-swish writes its result: nothing that fuses into it follows."""
    if isinstance(layer, keras.layers.Activation):
        # LOGISTIC has a fixed output range.
        return layer.activation is hard_swish
    if not isinstance(layer, (*_KERNELS, keras.layers.BatchNormalization)):
        return False
    followers = [node.layer for node in layer.outbound_nodes]
    fused = (keras.layers.BatchNormalization, keras.layers.ReLU, keras.layers.Reshape)
    return not all(isinstance(follower, fused) for follower in followers)
