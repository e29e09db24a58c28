"""Writes a graph as the bytes of an int8 .tflite file."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.graphs.graph import Graph, Node, QuantizedTensor
from tflite_export.tflite.model_file import FILE_IDENTIFIER

# Operation versions that the converter writes for int8 operations with per-channel weights.
_VERSIONS = {
    "ADD": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "HARD_SWISH": 1,
    "LOGISTIC": 2,
    "MEAN": 2,
    "MUL": 2,
    "QUANTIZE": 2,
    "RESHAPE": 1,
}
_SCHEMA_VERSION = 3


def to_tflite(graph: Graph) -> bytes:
    """Returns the content of the file, which LiteRT and compilers that read .tflite accept."""
    return _Writer(graph).finish()


@contextlib.contextmanager
def temporary_file(graph: Graph) -> Iterator[Path]:
    """Yields the path of the graph as a .tflite file, which is deleted after the `with` block."""
    with tempfile.TemporaryDirectory(prefix="mobiledets-") as folder:
        path = Path(folder) / "network.tflite"
        path.write_bytes(to_tflite(graph))
        yield path


class _Writer:
    def __init__(self, graph: Graph):
        self.graph = graph
        # Buffer 0 is empty by convention.
        self.buffers = [schema.BufferT()]
        self.tensors: list[schema.TensorT] = []
        self.codes: dict[str, int] = {}
        self.index = {name: self._activation(tensor) for name, tensor in graph.tensors.items()}
        self.operators = [self._operator(node) for node in graph.nodes]

    def finish(self) -> bytes:
        subgraph = schema.SubGraphT()
        subgraph.name, subgraph.tensors, subgraph.operators = b"main", self.tensors, self.operators
        subgraph.inputs = [self.index[self.graph.input]]
        subgraph.outputs = [self.index[name] for name in self.graph.outputs]
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = _SCHEMA_VERSION, [subgraph], self.buffers
        model.operatorCodes = [_code(op) for op in self.codes]
        model.description = b"random weights, for timing"
        builder = flatbuffers.Builder(sum(len(b.data) for b in self.buffers if b.data is not None) + 2**16)
        builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _activation(self, tensor: QuantizedTensor) -> int:
        scale = np.array([tensor.scale], np.float32)
        return self._tensor(tensor.name, tensor.shape, "INT8", None, (scale, [tensor.zero_point], 0))

    def _tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        data: np.ndarray | None,
        quantization: tuple | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name.encode(), [int(n) for n in shape]
        tensor.type = getattr(schema.TensorType, dtype)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        if quantization is not None:
            parameters = schema.QuantizationParametersT()
            scales, zero_points, parameters.quantizedDimension = quantization
            parameters.scale, parameters.zeroPoint = scales, np.asarray(zero_points, np.int64)
            tensor.quantization = parameters
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _operator(self, node: Node) -> schema.OperatorT:
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(node.op, len(self.codes))
        operator.inputs = [self.index[name] for name in node.inputs] + self._constants(node)
        operator.outputs = [self.index[node.output]]
        options = self._options(node)
        if options is not None:
            operator.builtinOptions = options
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        return operator

    def _constants(self, node: Node) -> list[int]:
        if node.op == "RESHAPE":
            shape = np.array(self.graph.tensors[node.output].shape, np.int32)
            return [self._tensor(f"{node.output}/shape", shape.shape, "INT32", shape)]
        if node.op == "MEAN":
            return [self._tensor(f"{node.output}/axes", (2,), "INT32", np.array([1, 2], np.int32))]
        if node.weights is None:
            return []
        weights, zeros = node.weights, np.zeros(len(node.weights.scales), np.int64)
        # The channel axis is the first of a full kernel and the last of a depthwise one.
        axis = 3 if node.op == "DEPTHWISE_CONV_2D" else 0
        kernel = self._tensor(
            f"{node.output}/kernel",
            weights.kernel.shape,
            "INT8",
            weights.kernel,
            (weights.scales, zeros, axis),
        )
        scales = weights.scales * np.float32(self.graph.tensors[node.inputs[0]].scale)
        quantization = (scales, zeros, 0)
        bias = self._tensor(f"{node.output}/bias", weights.bias.shape, "INT32", weights.bias, quantization)
        return [kernel, bias]

    def _options(self, node: Node) -> Any:
        make = _OPTIONS.get(node.op)
        return make(node) if make else None


def _code(op: str) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, op)
    # Readers from before 2020 use this field, which is a single byte.
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = _VERSIONS[op]
    return code


def _convolution(kind: type, node: Node) -> Any:
    options = kind()
    options.padding = schema.Padding.SAME
    options.strideH = options.strideW = node.strides
    if node.relu6:
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU6
    if hasattr(options, "depthMultiplier"):
        options.depthMultiplier = 1
    return options


def _concatenation(node: Node) -> Any:
    options = schema.ConcatenationOptionsT()
    options.axis = 1
    return options


def _mean(node: Node) -> Any:
    options = schema.ReducerOptionsT()
    options.keepDims = True
    return options


_OPTIONS: dict[str, Callable[[Node], Any]] = {
    "CONV_2D": functools.partial(_convolution, schema.Conv2DOptionsT),
    "DEPTHWISE_CONV_2D": functools.partial(_convolution, schema.DepthwiseConv2DOptionsT),
    "CONCATENATION": _concatenation,
    "MEAN": _mean,
    "ADD": lambda node: schema.AddOptionsT(),
    "MUL": lambda node: schema.MulOptionsT(),
}
