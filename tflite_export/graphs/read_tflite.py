"""Reads a graph from an int8 .tflite file: shapes, quantisation and weights.

The operations that end a detector on the CPU (DEQUANTIZE and the post-processing) are left out, as is a
QUANTIZE that only converts a uint8 image to int8.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobiledets_tf.errors import InputError
from tflite_export.graphs.graph import CONVOLUTIONS, OPS, Graph, Node, QuantizedTensor, Weights
from tflite_export.tflite import model_file

_RELU6 = schema.ActivationFunctionType.RELU6


def read_graph(path: str | os.PathLike) -> Graph:
    """Reads a .tflite file.

    Raises:
      InputError: the file is not .tflite, is not int8, or has an operation that graphs do not support.
    """
    model = model_file.read(path)
    return _Reader(model, Path(path).read_bytes(), str(path)).graph()


def tensor_index(name: str) -> int:
    """Returns the file's index of a tensor, from its name in a graph that was read from the file."""
    return int(name.rpartition("#")[2])


class _Reader:
    def __init__(self, model: model_file.ModelFile, data: bytes, path: str):
        self.model, self.path = model, path
        self.root = schema.Model.GetRootAs(data, 0)
        self.subgraph = self.root.Subgraphs(0)
        self.tensors: dict[str, QuantizedTensor] = {}
        self.nodes: list[Node] = []
        # Maps an index in the file to a name in the graph; names in a file need not be unique.
        self.names: dict[int, str] = {}

    def graph(self) -> Graph:
        for op in self.model.operators:
            if op.name not in model_file.CPU_BY_DESIGN:
                self._node(op, self.subgraph.Operators(op.index))
        read = {name for node in self.nodes for name in node.inputs}
        made = {node.output for node in self.nodes}
        inputs = sorted(read - made)
        if len(inputs) != 1 or not made:
            raise InputError(f"model {self.path!r} has {len(inputs)} int8 inputs; expected: 1")
        outputs = tuple(node.output for node in self.nodes if node.output not in read)
        return Graph(Path(self.path).stem, self.tensors, tuple(self.nodes), inputs[0], outputs)

    def _node(self, op: model_file.Operator, raw: Any) -> None:
        if op.name not in OPS:
            raise InputError(
                f"model {self.path!r}, op {op.index}: {op.name} is not supported; allowed: {', '.join(OPS)}"
            )
        sources = raw.InputsAsNumpy()
        if op.name == "QUANTIZE" and op.inputs[0].dtype == "UINT8":
            # It only offsets the stored values by 128, so the graph begins at its output.
            self._tensor(raw.Outputs(0))
            return
        constants = len(sources) if op.name not in (*CONVOLUTIONS, "RESHAPE", "MEAN") else 1
        inputs = tuple(self._tensor(int(i)) for i in sources[:constants])
        weights = self._weights(sources, op) if op.name in CONVOLUTIONS else None
        strides = getattr(op.options, "strideH", 1) if weights else 1
        relu6 = getattr(op.options, "fusedActivationFunction", 0) == _RELU6
        output = self._tensor(raw.Outputs(0))
        self.nodes.append(Node(op.name, inputs, output, strides, relu6, weights))

    def _tensor(self, index: int) -> str:
        if index in self.names:
            return self.names[index]
        tensor = self.subgraph.Tensors(index)
        quantization = tensor.Quantization()
        label = (tensor.Name() or b"").decode("utf-8", "replace")
        if tensor.Type() != schema.TensorType.INT8 or not quantization or quantization.ScaleLength() != 1:
            raise InputError(f"model {self.path!r}: tensor {label!r} is not int8 with one scale")
        name = self.names[index] = f"{label}#{index}"
        self.tensors[name] = QuantizedTensor(
            name,
            tuple(int(n) for n in tensor.ShapeAsNumpy()),
            float(quantization.Scale(0)),
            int(quantization.ZeroPoint(0)),
        )
        return name

    def _weights(self, sources: Sequence[int], op: model_file.Operator) -> Weights:
        kernel, scales = self._constant(int(sources[1]), np.int8, op)
        has_bias = len(sources) > 2 and sources[2] >= 0
        bias = self._constant(int(sources[2]), np.int32, op)[0] if has_bias else None
        channels = kernel.shape[3 if op.name == "DEPTHWISE_CONV_2D" else 0]
        scales = np.broadcast_to(scales, (channels,)).astype(np.float32)
        return Weights(kernel, scales, np.zeros(channels, np.int32) if bias is None else bias)

    def _constant(self, index: int, dtype: type, op: model_file.Operator) -> tuple[np.ndarray, Any]:
        tensor = self.subgraph.Tensors(index)
        raw = self.root.Buffers(tensor.Buffer()).DataAsNumpy()
        shape = tuple(int(n) for n in tensor.ShapeAsNumpy())
        if isinstance(raw, int) or raw.nbytes != np.prod(shape) * np.dtype(dtype).itemsize:
            kind = np.dtype(dtype).name
            raise InputError(f"model {self.path!r}, op {op.index} {op.name}: weights are not {kind}")
        quantization = tensor.Quantization()
        scales = quantization.ScaleAsNumpy() if quantization else 1.0
        return raw.view(dtype).reshape(shape), scales
