"""Quantisation error: compares every tensor of an int8 file with the same tensor of the float file.

Both files come from one model, so a layer has the same tensor name in both. Errors are relative:
the root mean square of the difference divided by the standard deviation of the float values. Errors
propagate to the layers that follow, so the error that a layer adds to that of its inputs shows which
layer is at fault.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tflite_export.tflite import blocks, model_file, runtime
from tflite_export.tflite.layout import RAW_OUTPUTS
from tflite_export.tflite.model_file import CUSTOM_OP, ModelFile, Operator

LISTED_LAYERS = 10


@dataclasses.dataclass(frozen=True)
class LayerError:
    """Quantisation error of one operation of the int8 file.

    Attributes:
      op_index, op: index and name of the operation.
      block: the part of the architecture that it comes from, or None.
      tensor: name of its output.
      error: error of the output relative to the float values.
      added: `error` minus the largest error of the inputs: the error that this layer adds.
    """

    op_index: int
    op: str
    block: str | None
    tensor: str
    error: float
    added: float


@dataclasses.dataclass(frozen=True)
class QuantizationError:
    """Quantisation error of a whole file.

    Attributes:
      images: number of images that were compared.
      outputs: relative error of `raw_boxes` and `class_scores`.
      layers: the layers that add most error, the worst first.
    """

    images: int
    outputs: dict[str, float]
    layers: list[LayerError]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict for a report."""
        return dataclasses.asdict(self)


class _Sums:
    """Sums over images, from which the relative error is computed."""

    def __init__(self) -> None:
        self.count, self.total, self.squares, self.differences = 0, 0.0, 0.0, 0.0

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        expected, found = expected.astype(np.float64), found.astype(np.float64)
        self.count += expected.size
        self.total += expected.sum()
        self.squares += np.square(expected).sum()
        self.differences += np.square(found - expected).sum()

    def relative(self) -> float:
        variance = self.squares / self.count - (self.total / self.count) ** 2
        # A constant tensor has no spread to compare with, so its magnitude is used instead.
        scale = variance if variance > 1e-12 else self.squares / self.count or 1.0
        return float(np.sqrt(self.differences / self.count / scale))


def compare(
    float_path: str | os.PathLike, int8_path: str | os.PathLike, samples: Iterable[np.ndarray]
) -> QuantizationError:
    """Runs both files on the same images and compares their tensors.

    Args:
      float_path, int8_path: files of one detector, either both with or both without post-processing.
      samples: images [1, height, width, 3] float32 in [-1, 1]; at least one.

    Raises:
      InputError: a file cannot be run.
    """
    models = model_file.read(float_path), model_file.read(int8_path)
    runners = runtime.TensorRunner(float_path), runtime.TensorRunner(int8_path)
    pairs = _pairs(*models)
    outputs = dict(zip(RAW_OUTPUTS, zip(*map(_raw_outputs, models, runners), strict=True), strict=True))
    sums = {pair: _Sums() for pair in {*pairs.values(), *outputs.values()}}
    images = 0
    for sample in samples:
        for runner in runners:
            runner.run(sample)
        for (one, other), sum_ in sums.items():
            sum_.add(runners[0].value(one), runners[1].value(other))
        images += 1
    errors = {other: sum_.relative() for (_, other), sum_ in sums.items()}
    compared = (op for op in models[1].operators if op.outputs and op.outputs[0].index in errors)
    layers = [_layer(op, errors) for op in compared if op.name != "QUANTIZE"]
    layers.sort(key=lambda layer: -layer.added)
    named = {name: errors[other] for name, (_, other) in outputs.items()}
    return QuantizationError(images, named, layers[:LISTED_LAYERS])


def _pairs(float_model: ModelFile, int8_model: ModelFile) -> dict[str, tuple[int, int]]:
    """Maps the name of each int8 activation that both files compute to its index in either file."""
    here = _named(float_model, lambda tensor: tensor.dtype == "FLOAT32")
    there = _named(int8_model, lambda tensor: tensor.dtype == "INT8")
    return {
        name: (here[name].index, there[name].index)
        for name in here.keys() & there.keys()
        if here[name].shape == there[name].shape
    }


def _named(model: ModelFile, wanted: Callable[[model_file.Tensor], bool]) -> dict[str, model_file.Tensor]:
    return {tensor.name: tensor for op in model.operators for tensor in op.outputs if wanted(tensor)}


def _raw_outputs(model: ModelFile, runner: runtime.TensorRunner) -> tuple[int, ...]:
    """Returns the indices of raw boxes and class scores: named outputs, or inputs of the post-process op."""
    last = next((op for op in model.operators if op.name == CUSTOM_OP), None)
    if last is not None:
        return tuple(tensor.index for tensor in last.inputs[:2])
    details = runner.interpreter.get_signature_runner().get_output_details()
    return tuple(details[name]["index"] for name in RAW_OUTPUTS)


def _layer(op: Operator, errors: dict[int, float]) -> LayerError:
    tensor = op.outputs[0]
    before = max((errors.get(source.index, 0.0) for source in op.inputs), default=0.0)
    error = errors[tensor.index]
    return LayerError(op.index, op.name, blocks.of_operator(op), tensor.name, error, error - before)


def worst_layers(error: QuantizationError, count: int = 3) -> str:
    """Formats the layers that add most error, for a message."""
    return ", ".join(
        f"{layer.block or layer.tensor} ({layer.op} {layer.op_index}: +{layer.added:.3f})"
        for layer in error.layers[:count]
    )
