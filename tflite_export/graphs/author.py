"""Builds an int8 graph with seeded random weights from an architecture.

It uses the same lowering as every other part of the project (`architecture.ops.lower`). Weights must
not be zero or constant, because compilers shrink such a network.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mobiledets_tf.architecture import ANCHORS_PER_LOCATION, Architecture, LayerSpec, feature_maps, image_hw
from mobiledets_tf.architecture.head import BOX_CODE_SIZE, check_num_classes
from mobiledets_tf.architecture.ops import (
    ConvOp,
    Op,
    SqueezeExciteOp,
    lower,
    lower_extra_level,
    lower_predictor,
)
from tflite_export.graphs.graph import Graph, Node, QuantizedTensor, Weights

# (scale, zero point) of pixels in [-1, 1], ReLU6, sigmoid, and of typical ranges of all other tensors.
_IMAGE = (2 / 255, -1)
_RELU6 = (6 / 255, -128)
_SIGMOID = (1 / 256, -128)
_LINEAR = (0.05, 0)
_HARD_SWISH = (0.025, -113)
# Rounded normal weights compress like trained weights after per-channel quantisation.
_WEIGHT_STDDEV = 36.0
_POOL = 1 << 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """Image size, classes and head of the network around its backbone.

    Attributes:
      image_size: (height, width) in pixels.
      num_classes: number of classes without the background.
      head: `ssdlite`, or `none` for the backbone with outputs C4 and C5.
    """

    image_size: tuple[int, int] = (320, 320)
    num_classes: int = 90
    head: str = "ssdlite"


def network_graph(architecture: Architecture, settings: Settings | None = None, seed: int = 0) -> Graph:
    """Builds the graph of the whole detector, or of its backbone.

    Raises:
      InputError: the image size or the class count is out of range.
    """
    settings = settings or Settings()
    size = image_hw(settings.image_size)
    builder = _Builder(architecture.name, (1, *size, 3), seed)
    endpoints = _backbone(builder, architecture)
    if settings.head == "none":
        return builder.graph((endpoints["C4"], endpoints["C5"]))
    check_num_classes(settings.num_classes)
    return builder.graph(_head(builder, architecture, endpoints, settings))


def block_graph(
    layers: tuple[LayerSpec, ...],
    in_channels: int,
    size: tuple[int, int],
    activation: str = "relu6",
    seed: int = 0,
) -> Graph:
    """Builds a graph of the given layers in sequence, on an input [1, height, width, in_channels]."""
    builder = _Builder("block", (1, *size, in_channels), seed, _LINEAR)
    x = builder.input
    for index, layer in enumerate(layers, 1):
        x = builder.layer(layer, f"block1_layer{index}", x, activation, None)
    return builder.graph((x,))


def _backbone(builder: "_Builder", architecture: Architecture) -> dict[str, str]:
    endpoint_of = {layer: endpoint for endpoint, layer in architecture.endpoints().items()}
    endpoints, x = {}, builder.input
    for name, spec in architecture.named_layers():
        se_ratio = None if spec is architecture.stem else architecture.se_ratio
        x = builder.layer(spec, name, x, architecture.activation, se_ratio)
        if name in endpoint_of:
            endpoints[endpoint_of[name]] = x
    return endpoints


def _head(
    builder: "_Builder", architecture: Architecture, endpoints: dict[str, str], settings: Settings
) -> tuple[str, str]:
    maps, levels = [endpoints["C4"], endpoints["C5"]], feature_maps(architecture, settings.image_size)
    for before, level in itertools.pairwise(levels[1:]):
        maps.append(builder.chain(lower_extra_level(before.channels, level.channels), level.name, maps[-1]))
    boxes = _predict(builder, maps, "box", BOX_CODE_SIZE, "raw_boxes")
    logits = _predict(builder, maps, "class", settings.num_classes + 1, "class_logits")
    return boxes, builder.unary("LOGISTIC", "class_scores", logits, _SIGMOID)


def _predict(builder: "_Builder", maps: list[str], task: str, columns: int, output: str) -> str:
    rows = []
    for index, (x, anchors) in enumerate(zip(maps, ANCHORS_PER_LOCATION, strict=True)):
        _, height, width, channels = builder.shape(x)
        name = f"predictor{index}_{task}"
        x = builder.chain(lower_predictor(channels, anchors * columns), name, x)
        rows.append(builder.add("RESHAPE", f"{name}_rows", (x,), (1, height * width * anchors, columns)))
    count = sum(builder.shape(row)[1] for row in rows)
    return builder.add("CONCATENATION", output, tuple(rows), (1, count, columns))


class _Builder:
    """Collects nodes; methods that add nodes return the name of the resulting tensor."""

    def __init__(
        self, name: str, input_shape: tuple[int, ...], seed: int, quantization: tuple[float, int] = _IMAGE
    ) -> None:
        self.name, self.input = name, "image"
        self.tensors = {self.input: QuantizedTensor(self.input, input_shape, *quantization)}
        self.nodes: list[Node] = []
        self._rng = np.random.default_rng(seed)
        normal = self._rng.standard_normal(_POOL, np.float32) * _WEIGHT_STDDEV
        self._pool = np.clip(np.rint(normal), -127, 127).astype(np.int8)

    def graph(self, outputs: tuple[str, ...]) -> Graph:
        return Graph(self.name, self.tensors, tuple(self.nodes), self.input, outputs)

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.tensors[tensor].shape

    def add(
        self,
        op: str,
        name: str,
        inputs: tuple[str, ...],
        shape: Sequence[int],
        quantization: tuple[float, int] = _LINEAR,
        **fields: Any,
    ) -> str:
        self.tensors[name] = QuantizedTensor(name, tuple(shape), *quantization)
        self.nodes.append(Node(op, inputs, name, **fields))
        return name

    def unary(self, op: str, name: str, x: str, quantization: tuple[float, int]) -> str:
        return self.add(op, name, (x,), self.shape(x), quantization)

    def layer(self, spec: LayerSpec, name: str, x: str, activation: str, se_ratio: float | None) -> str:
        """Adds a layer of the search space, including its residual addition."""
        out = self.chain(lower(spec, self.shape(x)[-1], activation, se_ratio), name, x)
        return self.add("ADD", f"{name}_add", (x, out), self.shape(out)) if spec.residual else out

    def chain(self, ops: Iterable[Op], name: str, x: str) -> str:
        for op in ops:
            out = f"{name}_{op.name}"
            if isinstance(op, SqueezeExciteOp):
                x = self._squeeze_excite(op, out, x)
            else:
                x = self._conv(op, out, x)
        return x

    def _conv(self, op: ConvOp, name: str, x: str) -> str:
        _, height, width, _ = self.shape(x)
        shape = (1, -(-height // op.strides), -(-width // op.strides), op.out_channels)
        relu6 = op.activation == "relu6"
        kernel = (
            (1, op.kernel_size, op.kernel_size, op.out_channels)
            if op.depthwise
            else (op.out_channels, op.kernel_size, op.kernel_size, op.in_channels)
        )
        x = self.add(
            "DEPTHWISE_CONV_2D" if op.depthwise else "CONV_2D",
            name,
            (x,),
            shape,
            _RELU6 if relu6 else _LINEAR,
            strides=op.strides,
            relu6=relu6,
            weights=self._weights(kernel, op.out_channels),
        )
        return self._activated(x, op.activation)

    def _activated(self, x: str, activation: str | None) -> str:
        return self.unary("HARD_SWISH", f"{x}_act", x, _HARD_SWISH) if activation == "hard_swish" else x

    def _squeeze_excite(self, op: SqueezeExciteOp, name: str, x: str) -> str:
        gate = self.add("MEAN", f"{name}_mean", (x,), (1, 1, 1, op.channels))
        reduce = ConvOp("reduce", 1, 1, op.channels, op.hidden, False, op.activation)
        gate = self._conv(reduce, f"{name}_reduce", gate)
        gate = self._conv(ConvOp("expand", 1, 1, op.hidden, op.channels), f"{name}_expand", gate)
        gate = self.unary("LOGISTIC", f"{name}_gate", gate, _SIGMOID)
        return self.add("MUL", f"{name}_scale", (x, gate), self.shape(x))

    def _weights(self, shape: tuple[int, ...], channels: int) -> Weights:
        count = int(np.prod(shape))
        start = int(self._rng.integers(_POOL))
        kernel = np.take(self._pool, np.arange(start, start + count), mode="wrap").reshape(shape)
        # The scales keep a sum over a window inside the output's range, so that not every output saturates.
        fan_in = max(1, count // channels)
        scales = self._rng.uniform(0.5, 1.5, channels).astype(np.float32) / (_WEIGHT_STDDEV * fan_in**0.5)
        bias = self._rng.integers(-500, 500, channels).astype(np.int32)
        return Weights(kernel, scales, bias)
