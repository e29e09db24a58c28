"""The CPU of this machine, measured with LiteRT and XNNPACK."""

import importlib.metadata
import os
import platform
from typing import TYPE_CHECKING

from tflite_export.devices import Latency, timing
from tflite_export.tflite import runtime

if TYPE_CHECKING:
    from tflite_export.graphs import Graph

KIND = "measured"
VARIANTS = {"": None}
DEFAULT_VARIANT = ""


def versions(variant: str = DEFAULT_VARIANT) -> dict[str, str]:
    """Returns what the latency depends on: the runtime's version and the processor's name."""
    del variant
    return {"ai-edge-litert": importlib.metadata.version("ai-edge-litert"), "cpu": _cpu_name()}


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def measure_graph(
    graph: "Graph",
    variant: str = DEFAULT_VARIANT,
    threads: int = 1,
    runs: int = 50,
    seconds: float = timing.SECONDS,
) -> Latency:
    """Measures a graph after writing it to a temporary .tflite file."""
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
    """Measures one inference of a .tflite file; see `timing.measure`. `variant` is ignored.

    Raises:
      InputError: the file cannot be run on this machine.
    """
    interpreter = runtime.open_model(path, threads)
    return timing.measure(interpreter, "host_cpu", path, threads, runs, seed, seconds)
