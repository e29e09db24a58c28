"""Writes a graph as an ONNX model with QuantizeLinear/DequantizeLinear pairs (QDQ), for onnxruntime.

Activations are uint8 (int8 + 128), and input and outputs keep their NHWC layout. With int8
activations, or with NCHW inputs and outputs, the QNN compiler reports no cost for some operations
(measured).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mobiledets_tf.errors import missing_extra
from tflite_export.graphs.graph import Graph, Node, Weights

OPSET = 17
_IR_VERSION = 9
_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def to_onnx(graph: Graph) -> bytes:
    """Returns the serialised model; its input and outputs are uint8.

    Raises:
      InputError: the `hexagon` extra is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("hexagon", "onnx") from error
    return _Writer(graph, onnx).finish()


class _Writer:
    """Writes the model: feature maps are NCHW inside; tensors of another rank are as in the graph."""

    def __init__(self, graph: Graph, onnx: Any) -> None:
        self.graph, self.onnx, self.helper = graph, onnx, onnx.helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._numbers = itertools.count()
        self._quantization: dict[tuple, tuple[str, str]] = {}

    def finish(self) -> bytes:
        ends = {name: self._value(name) for name in (self.graph.input, *self.graph.outputs)}
        self._transpose(self.graph.input, f"{self.graph.input}/nhwc", _TO_NCHW, into=False)
        for node in self.graph.nodes:
            self._node(node)
        for name in self.graph.outputs:
            if self._is_map(name):
                self._transpose(name, f"{name}/nhwc", _TO_NHWC, into=True)
        inputs = [ends[self.graph.input]]
        outputs = [ends[name] for name in self.graph.outputs]
        body = self.helper.make_graph(self.nodes, "network", inputs, outputs, self.constants)
        opsets = [self.helper.make_opsetid("", OPSET)]
        model = self.helper.make_model(body, opset_imports=opsets, ir_version=_IR_VERSION)
        return model.SerializeToString()

    def _value(self, name: str) -> Any:
        suffix = "/nhwc" if self._is_map(name) else ""
        shape = self.graph.tensors[name].shape
        return self.helper.make_tensor_value_info(f"{name}{suffix}", self.onnx.TensorProto.UINT8, shape)

    def _is_map(self, name: str) -> bool:
        return len(self.graph.tensors[name].shape) == 4

    def _transpose(self, name: str, nhwc: str, order: Sequence[int], into: bool) -> None:
        source, target = (name, nhwc) if into else (nhwc, name)
        x = self._dequantize(source, name)
        self._emit("Transpose", [x], f"{target}/real", perm=order)
        self._quantize(f"{target}/real", target, name)

    def _node(self, node: Node) -> None:
        inputs = [self._dequantize(name, name) for name in node.inputs]
        if node.op == "QUANTIZE":
            self._quantize(inputs[0], node.output, node.output)
            return
        real = f"{node.output}/real"
        if node.weights is not None:
            self._convolution(node, node.weights, inputs[0], real)
        elif node.op == "RESHAPE":
            self._reshape(node, inputs[0], real)
        else:
            name, attributes = _PLAIN[node.op]
            self._emit(name, inputs, real, **attributes)
        self._quantize(real, node.output, node.output)

    def _convolution(self, node: Node, weights: Weights, x: str, real: str) -> None:
        depthwise = node.op == "DEPTHWISE_CONV_2D"
        # TFLite stores [out, h, w, in] and [1, h, w, channels]; ONNX requires [out, in / groups, h, w].
        kernel = weights.kernel.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        height, width = kernel.shape[2:]
        parts = [
            self._constant_dequantized(np.ascontiguousarray(kernel), weights.scales),
            self._constant_dequantized(
                weights.bias, weights.scales * np.float32(self.graph.tensors[node.inputs[0]].scale)
            ),
        ]
        self._emit(
            "Conv",
            [x, *parts],
            real,
            kernel_shape=(height, width),
            strides=(node.strides,) * 2,
            pads=self._pads(node, height, width),
            group=kernel.shape[0] if depthwise else 1,
        )

    def _pads(self, node: Node, height: int, width: int) -> list[int]:
        """Returns SAME padding as TFLite defines it: an odd pixel is added at the end."""
        sides = zip(
            self.graph.tensors[node.inputs[0]].shape[1:3],
            self.graph.tensors[node.output].shape[1:3],
            (height, width),
            strict=True,
        )
        total = [max((out - 1) * node.strides + kernel - side, 0) for side, out, kernel in sides]
        return [t // 2 for t in total] + [t - t // 2 for t in total]

    def _reshape(self, node: Node, x: str, real: str) -> None:
        """Adds a reshape; the rows must be read in NHWC order."""
        if self._is_map(node.inputs[0]):
            moved, scale = f"{node.output}/moved", node.inputs[0]
            self._emit("Transpose", [x], f"{moved}/real", perm=_TO_NHWC)
            self._quantize(f"{moved}/real", moved, scale)
            x = self._dequantize(moved, scale)
        shape = np.array(self.graph.tensors[node.output].shape, np.int64)
        self._emit("Reshape", [x, self._constant(shape)], real)

    def _dequantize(self, source: str, like: str) -> str:
        # Each reader gets its own DequantizeLinear, because onnxruntime groups it with that reader.
        name = f"{source}/{next(self._numbers)}"
        self._emit("DequantizeLinear", [source, *self._parameters(like)], name)
        return name

    def _quantize(self, real: str, target: str, like: str) -> None:
        self._emit("QuantizeLinear", [real, *self._parameters(like)], target)

    def _parameters(self, name: str) -> tuple[str, str]:
        tensor = self.graph.tensors[name]
        key = (tensor.scale, tensor.zero_point)
        if key not in self._quantization:
            scale = self._constant(np.float32(tensor.scale))
            self._quantization[key] = scale, self._constant(np.uint8(tensor.zero_point + 128))
        return self._quantization[key]

    def _constant_dequantized(self, values: np.ndarray, scales: np.ndarray) -> str:
        zeros = self._constant(np.zeros(len(scales), values.dtype))
        inputs = [self._constant(values), self._constant(scales.astype(np.float32)), zeros]
        name = f"{inputs[0]}/real"
        self._emit("DequantizeLinear", inputs, name, axis=0)
        return name

    def _constant(self, value: np.ndarray | np.generic) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def _emit(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(op, inputs, [output], name=name, **attributes))


# Axis 1 is the one along which rows of boxes are listed; maps are averaged over height and width.
_PLAIN = {
    "ADD": ("Add", {}),
    "MUL": ("Mul", {}),
    "LOGISTIC": ("Sigmoid", {}),
    "HARD_SWISH": ("HardSwish", {}),
    "MEAN": ("GlobalAveragePool", {}),
    "CONCATENATION": ("Concat", {"axis": 1}),
}
