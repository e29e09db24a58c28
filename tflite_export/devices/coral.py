"""A Coral Edge TPU attached to this machine (USB, PCIe or on the board), measured through libedgetpu.

A file is first compiled by Coral's `edgetpu_compiler`; a file that is already compiled is used as is.
"""

import ctypes
import importlib.metadata
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

from mobiledets_tf.errors import InputError
from tflite_export.devices import Latency, edgetpu_compiler, edgetpu_log, process, timing
from tflite_export.tflite import model_file, runtime

if TYPE_CHECKING:
    from tflite_export.graphs import Graph

KIND = "measured"
VARIANTS = {"": None}
DEFAULT_VARIANT = ""
LIBRARY = "libedgetpu.so.1"
# The operation that the compiler writes in place of those that it maps.
COMPILED_OP = next(iter(model_file.COMPILED_OPS))
_VERSION_TIMEOUT_S = 30
_HELP = "see https://coral.ai/software"


def attached() -> int:
    """Returns the number of Edge TPUs that the library detects.

    Raises:
      InputError: the library is not installed.
    """
    count = ctypes.c_size_t()
    library = _library()
    library.edgetpu_list_devices.restype = ctypes.c_void_p
    devices = library.edgetpu_list_devices(ctypes.byref(count))
    if devices:
        library.edgetpu_free_devices(ctypes.c_void_p(devices))
    return count.value


def versions(variant: str = DEFAULT_VARIANT) -> dict[str, str]:
    """Returns the versions that the latency depends on: runtime, library and compiler.

    Raises:
      InputError: the library or the compiler is not installed.
    """
    del variant
    library = _library()
    library.edgetpu_version.restype = ctypes.c_char_p
    compiler = [_compiler(), "--version"]
    _, printed = process.run(edgetpu_compiler.COMPILER, compiler, _VERSION_TIMEOUT_S)
    return {
        "ai-edge-litert": importlib.metadata.version("ai-edge-litert"),
        "libedgetpu": library.edgetpu_version().decode("utf-8", "replace"),
        "edgetpu_compiler": edgetpu_log.parse(printed).version or "unknown",
    }


def measure_graph(
    graph: "Graph",
    variant: str = DEFAULT_VARIANT,
    threads: int = 1,
    runs: int = 50,
    seconds: float = timing.SECONDS,
) -> Latency:
    """Compiles and measures a graph; raises the same errors as `measure`."""
    from tflite_export.graphs.write_tflite import temporary_file

    with temporary_file(graph) as path:
        return measure(path, threads, runs, variant, seconds=seconds)


def measure(
    path: str | os.PathLike,
    threads: int = 1,
    runs: int = 50,
    variant: str = DEFAULT_VARIANT,
    seed: int = 0,
    seconds: float = timing.SECONDS,
) -> Latency:
    """Measures one inference of an int8 .tflite file; see `timing.measure`.

    `threads` applies to the operations that stay on the CPU.

    Raises:
      InputError: the library, the compiler or the device is missing, or LiteRT cannot run the file.
      RuntimeError: the compiler rejects the file.
    """
    del variant
    chip = delegate()
    with tempfile.TemporaryDirectory(prefix="mobiledets-") as folder:
        interpreter = runtime.open_model(compiled(path, folder), threads, delegates=[chip])
        return timing.measure(interpreter, "coral", path, threads, runs, seed, seconds)


def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise InputError(f"{LIBRARY} is not installed (package libedgetpu1-std); {_HELP}") from error


def _compiler() -> str:
    found = shutil.which(edgetpu_compiler.COMPILER)
    if not found:
        raise InputError(f"{edgetpu_compiler.COMPILER} is not on PATH (package edgetpu-compiler); {_HELP}")
    return found


def delegate() -> Any:
    """Loads the delegate of the attached Edge TPU.

    Raises:
      InputError: the library or the device is missing.
    """
    if not attached():
        raise InputError(f"{LIBRARY} finds no Edge TPU; attach one, or plug it in again; {_HELP}")
    from ai_edge_litert.interpreter import load_delegate

    try:
        return load_delegate(LIBRARY)
    except (OSError, ValueError) as error:
        raise InputError(f"the Edge TPU cannot be opened through {LIBRARY}; is it in use?") from error


def compiled(path: str | os.PathLike, folder: str) -> str:
    """Returns the path of a compiled file: `path` itself, or the file that is compiled into `folder`.

    Raises:
      InputError: the compiler is missing, or the path is not a .tflite file.
      RuntimeError: the compiler rejects the file.
    """
    if COMPILED_OP in model_file.read(path).histogram():
        return os.fspath(path)
    _compiler()
    answer = edgetpu_compiler.compile_model(path, folder)
    if answer.output is None:
        raise RuntimeError(answer.reason)
    return answer.output
