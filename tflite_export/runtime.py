"""Running a .tflite file with LiteRT."""

import os

from mobiledets_tf.errors import InputError
from tflite_export import inspect
from tflite_export.native_output import held_back


def open_model(path: str | os.PathLike, threads: int = 1):
    """An `ai_edge_litert` interpreter with its tensors allocated.

    Raises:
      InputError: the file is missing, damaged, or has an operation the runtime lacks.
    """
    inspect.read(path)
    from ai_edge_litert.interpreter import Interpreter

    try:
        with held_back():
            interpreter = Interpreter(os.fspath(path), num_threads=threads)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"LiteRT cannot run model {str(path)!r}: {_first_line(error)}") from error
    return interpreter


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
