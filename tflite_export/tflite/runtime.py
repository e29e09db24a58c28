"""Runs a .tflite file with LiteRT."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mobiledets_tf.errors import InputError, first_line
from mobiledets_tf.native_output import held_back
from tflite_export.tflite import model_file


def open_model(
    model: str | os.PathLike | bytes,
    threads: int = 1,
    keep_tensors: bool = False,
    delegates: Sequence = (),
    name: str = "",
) -> Any:
    """Returns an `ai_edge_litert` interpreter with its tensors allocated.

    `keep_tensors` runs the builtin kernels without a delegate and keeps every tensor readable after a run.
    `model` is a path or the bytes of a file; `name` is the name of such bytes in messages. `delegates` are
    loaded delegates of an accelerator.

    Raises:
      InputError: the file is missing or damaged, or has an operation that the runtime lacks.
    """
    where: dict[str, Any]
    if isinstance(model, bytes):
        name, where = name or "model", {"model_content": model}
        model_file.parse(model, name)
    else:
        name, where = name or str(model), {"model_path": os.fspath(model)}
        model_file.read(model)
    from ai_edge_litert.interpreter import Interpreter

    try:
        with held_back():
            interpreter = Interpreter(
                **where,
                num_threads=threads,
                experimental_delegates=list(delegates),
                **_keeping(keep_tensors),
            )
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"LiteRT cannot run model {name!r}: {first_line(error)}") from error
    return interpreter


class TensorRunner:
    """Runs a file with one image input on one thread and keeps every tensor readable.

    Raises:
      InputError: the file cannot be run, or has several inputs.
    """

    def __init__(self, path: str | os.PathLike):
        self.interpreter = open_model(path, threads=1, keep_tensors=True)
        self._quantization = {
            detail["index"]: detail["quantization"] for detail in self.interpreter.get_tensor_details()
        }
        inputs = self.interpreter.get_input_details()
        if len(inputs) != 1:
            raise InputError(f"model {str(path)!r} has {len(inputs)} inputs; expected: 1")
        self._input = inputs[0]

    def run(self, image: np.ndarray) -> None:
        """Runs on an image [1, height, width, 3] float32 in [-1, 1]; quantises it if the input requires."""
        from tflite_export.tflite.pixels import quantize

        dtype, quantization = self._input["dtype"], self._input["quantization"]
        value = image if dtype == np.float32 else quantize(image, dtype, *quantization)
        self.interpreter.set_tensor(self._input["index"], value)
        self.interpreter.invoke()

    def stored(self, index: int) -> np.ndarray:
        """Returns a tensor as it is stored."""
        return self.interpreter.get_tensor(index)

    def value(self, index: int) -> np.ndarray:
        """Returns a tensor as real numbers, dequantised."""
        value, (scale, zero_point) = self.stored(index), self._quantization[index]
        return value if not scale else (value.astype(np.float32) - zero_point) * np.float32(scale)


def _keeping(keep_tensors: bool) -> dict:
    if not keep_tensors:
        return {}
    from ai_edge_litert.interpreter import OpResolverType

    # The default delegate is disabled, because it would keep its own copies of intermediate tensors.
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return {"experimental_preserve_all_tensors": True, "experimental_op_resolver_type": resolver}
