"""Reads the operations, tensors and signatures of any .tflite file, whoever made it."""

import collections
import dataclasses
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobiledets_tf.errors import InputError

FILE_IDENTIFIER = b"TFL3"
# The post-processing operation, defined here so that readers of files need no TensorFlow.
CUSTOM_OP = "TFLite_Detection_PostProcess"
# These operations end a detector and run on the CPU by design, which is not a fault.
CPU_BY_DESIGN = frozenset({"DEQUANTIZE", CUSTOM_OP})
# Operations that compilers write in place of those that they map, and the chips they are for.
COMPILED_OPS = {"edgetpu-custom-op": "the Edge TPU", "ethos-u": "an Ethos-U"}
# Maximum bytes of a constant whose values are read: axes, paddings, strides.
_SHORT = 64
# Errors that the generated readers raise on damaged files.
READ_ERRORS = (struct.error, LookupError, ValueError, TypeError, AttributeError, OverflowError)
_FLOAT_TYPES = frozenset({"FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16"})


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


_OPS, _TYPES = _names(schema.BuiltinOperator), _names(schema.TensorType)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
      name: name in the file; the converter joins the names of fused layers with `;`.
      dtype: the schema's name of the type, such as `INT8` or `FLOAT32`.
      shape: shape as stored; empty for a scalar or if the file does not specify it.
      is_dynamic: whether a dimension is not fixed (-1 in the shape signature).
      size: bytes of its constant data; 0 for an activation.
      scales, zero_points: quantisation parameters; empty if there are none.
      values: values of a short int32 constant (axes, paddings, strides, shapes), otherwise empty.
      is_variable: whether it keeps its content from one inference to the next.
      index: index in the subgraph.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_dynamic: bool
    size: int
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    values: tuple[int, ...] = ()
    is_variable: bool = False
    index: int = -1

    @property
    def is_constant(self) -> bool:
        """Whether the file stores the values of the tensor."""
        return self.size > 0

    @property
    def is_float(self) -> bool:
        """Whether the tensor has a floating-point type."""
        return self.dtype in _FLOAT_TYPES


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operation with its tensors. The `name` of a custom operation is its custom code."""

    index: int
    name: str
    version: int
    is_custom: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Any = None

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """Inputs and outputs that are not constants."""
        return tuple(t for t in (*self.inputs, *self.outputs) if not t.is_constant)


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A .tflite file. Its operators, inputs and outputs are those of the first subgraph."""

    size: int
    subgraphs: int
    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    signatures: dict[str, dict[str, list[str]]]

    def histogram(self) -> dict[str, int]:
        """Counts the operations of each kind, with the most frequent first."""
        counts = collections.Counter(op.name for op in self.operators)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def compiled_for(self) -> str | None:
        """Returns the chip that the file was compiled for, or None for a file that is not compiled."""
        return next((COMPILED_OPS[op.name] for op in self.operators if op.name in COMPILED_OPS), None)

    def float_operators(self) -> list[Operator]:
        """Returns the operations that compute in float.

        Operations that only convert the type (QUANTIZE, DEQUANTIZE) are not included.
        """
        computing = (op for op in self.operators if op.name not in ("QUANTIZE", "DEQUANTIZE"))
        return [op for op in computing if any(t.is_float for t in op.activations)]

    def constants_size(self) -> int:
        """Returns the total bytes of all constants that operations read, each counted once."""
        found = {id(t): t.size for op in self.operators for t in op.inputs}
        return sum(found.values())

    def summary(self) -> dict:
        """Returns the description of the file in a report."""
        return {
            "bytes": self.size,
            "subgraphs": self.subgraphs,
            "operators": len(self.operators),
            "histogram": self.histogram(),
            "float_operators": dict(collections.Counter(op.name for op in self.float_operators())),
            "inputs": [describe(t) for t in self.inputs],
            "outputs": [describe(t) for t in self.outputs],
            "signatures": self.signatures,
        }


def describe(tensor: Tensor) -> dict:
    """Returns the description of a tensor in a report."""
    fields: dict[str, Any] = {"name": tensor.name, "dtype": tensor.dtype.lower(), "shape": list(tensor.shape)}
    if len(tensor.scales) == 1:
        fields |= {"scale": tensor.scales[0], "zero_point": tensor.zero_points[0]}
    return fields


def read(path: str | os.PathLike) -> ModelFile:
    """Reads a .tflite file.

    Raises:
      InputError: the file is missing, not a .tflite file, or damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read model {str(path)!r}: {error.strerror}") from error
    return parse(data, str(path))


def refuse_compiled(model: ModelFile, name: str | os.PathLike, instead: str) -> None:
    """Raises InputError for a file that is already compiled; `instead` tells the user what to do."""
    if chip := model.compiled_for():
        raise InputError(f"model {str(name)!r} is already compiled for {chip}: {instead}")


def parse(data: bytes, name: str = "model") -> ModelFile:
    """Parses the bytes of a .tflite file; `name` is used in messages.

    Raises:
      InputError: the bytes are not a .tflite file, or are damaged.
    """
    if data[4:8] != FILE_IDENTIFIER:
        raise InputError(f"model {name!r} is not a .tflite file: it begins with {data[:8]!r}, without 'TFL3'")
    try:
        return _Reader(data).model()
    except READ_ERRORS as error:
        raise InputError(f"model {name!r} is damaged or truncated: {' '.join(str(error).split())}") from error


class _Reader:
    """Converts a flatbuffer to the classes above."""

    def __init__(self, data: bytes):
        self.data = data
        self.root = schema.Model.GetRootAs(data, 0)
        if not self._count(self.root.SubgraphsLength()):
            raise ValueError("it has no subgraph")
        self.graph = self.root.Subgraphs(0)
        # Each tensor becomes a single object, so that operations share the tensors between them.
        count = self._count(self.graph.TensorsLength())
        self.tensors = [self._tensor(self.graph.Tensors(i), i) for i in range(count)]

    def model(self) -> ModelFile:
        return ModelFile(
            size=len(self.data),
            subgraphs=self.root.SubgraphsLength(),
            operators=tuple(self._operator(i) for i in range(self._count(self.graph.OperatorsLength()))),
            inputs=self._pick(self.graph.InputsAsNumpy()),
            outputs=self._pick(self.graph.OutputsAsNumpy()),
            signatures=self._signatures(),
        )

    def _count(self, length: int) -> int:
        # Looping over a damaged length could take hours; a valid element takes at least four bytes.
        if length * 4 > len(self.data):
            raise ValueError(f"a list has {length} elements, but the file only {len(self.data)} bytes")
        return length

    def _operator(self, index: int) -> Operator:
        op = self.graph.Operators(index)
        if op.OpcodeIndex() >= self._count(self.root.OperatorCodesLength()):
            raise IndexError("operator code out of range")
        code = self.root.OperatorCodes(op.OpcodeIndex())
        # Files from before 2020 have the code only in the deprecated field.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        is_custom = number == schema.BuiltinOperator.CUSTOM
        name = _text(code.CustomCode()) if is_custom else _OPS.get(number, f"BUILTIN_{number}")
        inputs, outputs = self._pick(op.InputsAsNumpy()), self._pick(op.OutputsAsNumpy())
        return Operator(index, name, code.Version(), is_custom, inputs, outputs, _options(op))

    def _pick(self, indices: Any) -> tuple[Tensor, ...]:
        # -1 stands for an omitted optional tensor.
        indices = [int(i) for i in _array(indices) if i >= 0]
        return tuple(self.tensors[i] for i in indices)

    def _tensor(self, tensor: Any, index: int) -> Tensor:
        signature = _array(tensor.ShapeSignatureAsNumpy())
        quantization = tensor.Quantization()
        scales = _array(quantization.ScaleAsNumpy()) if quantization else ()
        return Tensor(
            name=_text(tensor.Name()),
            dtype=_TYPES.get(tensor.Type(), f"TYPE_{tensor.Type()}"),
            shape=tuple(int(n) for n in _array(tensor.ShapeAsNumpy())),
            is_dynamic=any(n < 0 for n in signature),
            size=self._buffer_size(tensor.Buffer()),
            scales=tuple(float(s) for s in scales),
            zero_points=tuple(int(z) for z in _array(quantization.ZeroPointAsNumpy())) if len(scales) else (),
            values=self._values(tensor),
            is_variable=bool(tensor.IsVariable()),
            index=index,
        )

    def _buffer_size(self, index: int) -> int:
        if index >= self._count(self.root.BuffersLength()):
            raise IndexError("buffer index out of range")
        buffer = self.root.Buffers(index)
        # Files above 2 GiB store their data after the flatbuffer.
        size = max(buffer.DataLength(), buffer.Size())
        if size > len(self.data):
            raise ValueError(f"a buffer has {size} bytes, but the file only {len(self.data)}")
        return size

    def _values(self, tensor: Any) -> tuple[int, ...]:
        if tensor.Type() != schema.TensorType.INT32 or self._buffer_size(tensor.Buffer()) > _SHORT:
            return ()
        data = self.root.Buffers(tensor.Buffer()).DataAsNumpy()
        return () if isinstance(data, int) else tuple(int(v) for v in np.frombuffer(data, "<i4"))

    def _signatures(self) -> dict[str, dict[str, list[str]]]:
        found = {}
        for i in range(self._count(self.root.SignatureDefsLength())):
            definition = self.root.SignatureDefs(i)
            inputs = [definition.Inputs(j) for j in range(self._count(definition.InputsLength()))]
            outputs = [definition.Outputs(j) for j in range(self._count(definition.OutputsLength()))]
            found[_text(definition.SignatureKey())] = {
                "inputs": sorted(_text(t.Name()) for t in inputs),
                "outputs": sorted(_text(t.Name()) for t in outputs),
            }
        return found


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", "replace")


def _array(value: Any) -> np.ndarray:
    # The generated reader returns 0 for a missing list.
    return np.empty(0) if isinstance(value, int) else np.asarray(value)


def _options(op: Any) -> object:
    """Returns the builtin options as an object of the schema, or None."""
    kind = op.BuiltinOptionsType()
    table = op.BuiltinOptions()
    if table is None:
        return None
    return schema.BuiltinOptionsCreator(kind, table)
