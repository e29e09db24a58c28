"""Qualcomm Hexagon (HTP), simulated: the time that the QNN compiler of onnxruntime-qnn estimates.

Creating a session with detailed profiling compiles the graph and writes "Simulated (Accelerator
exec cycles)" to a CSV file. The same graph always yields the same figure; use it to rank networks.
"""

import csv
import functools
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf.errors import InputError, missing_extra, unknown_name
from mobiledets_tf.native_output import held_back
from tflite_export.devices import Latency
from tflite_export.devices.int8_check import check
from tflite_export.devices.litert_aot import SOCS as COMPILE_VARIANTS
from tflite_export.devices.litert_aot import compile_model
from tflite_export.graphs import Graph
from tflite_export.tflite import runtime

__all__ = [
    "COMPILE_VARIANTS",
    "DEFAULT_VARIANT",
    "KIND",
    "VARIANTS",
    "check",
    "compile_model",
    "emulation_difference",
    "measure",
    "measure_graph",
    "versions",
]

KIND = "simulated"
# These are the SoC models, of those tried, that report a simulated time.
VARIANTS = {"v73": {"soc_model": "52", "htp_arch": "73"}}
DEFAULT_VARIANT = "v73"
_PROVIDER = "QNNExecutionProvider"
_CYCLES, _MICROSECONDS = "Simulated (Accelerator exec cycles)", "Simulated (Accelerator exec time us)"
_LOWER, _UPPER = (f"Simulated (Accelerator exec time us ({side} estimate))" for side in ("lower", "upper"))
_NO_COST = "Missing Ops (Number of Ops with no Costs associated)"
_BYTES = {
    "Input Fill": "input_fill_bytes",
    "Intermediate Fill": "fill_bytes",
    "Intermediate Spill": "spill_bytes",
}


def versions(variant: str = DEFAULT_VARIANT) -> dict[str, str]:
    """Returns the versions that the latency depends on."""
    ort, qnn = _packages()
    del variant
    return {
        "onnxruntime": ort.__version__,
        "onnxruntime-qnn": qnn.__version__,
        "qnn": qnn.build_and_package_info.qnn_version,
    }


def measure(
    path: str | os.PathLike, threads: int = 1, runs: int = 1, variant: str = DEFAULT_VARIANT
) -> Latency:
    """Simulates the latency of an int8 .tflite file, without operations on the CPU (post-processing).

    Raises:
      InputError: the graph writer does not support an operation, or the optional dependency is missing.
    """
    from tflite_export.graphs.read_tflite import read_graph

    del threads, runs  # The simulation is deterministic.
    return measure_graph(read_graph(path), variant)


def measure_graph(graph: Graph, variant: str = DEFAULT_VARIANT) -> Latency:
    """Simulates the latency of a graph.

    Raises:
      InputError: the optional dependency is missing, or the variant is unknown.
      RuntimeError: QNN cannot run the whole graph, or reported no figure.
    """
    from tflite_export.graphs.write_onnx import to_onnx

    if variant not in VARIANTS:
        raise unknown_name("variant of hexagon", variant, VARIANTS)
    rows = _profile(to_onnx(graph), VARIANTS[variant])
    cycles, microseconds = rows.get(_CYCLES, 0), rows.get(_MICROSECONDS, 0)
    if cycles <= 0 or microseconds <= 0:
        raise RuntimeError("QNN reports no simulated time for this graph")
    if rows.get(_NO_COST, 0):
        raise RuntimeError(f"QNN has no cost for {rows[_NO_COST]} operations of this graph")
    details = {"variant": variant, "cycles": cycles} | {
        name: rows[title] for title, name in _BYTES.items() if title in rows
    }
    spread = (rows.get(_UPPER, microseconds) - rows.get(_LOWER, microseconds)) / 2 / microseconds
    # Cycles are more precise than whole microseconds; the clock is the one that both figures imply.
    return Latency("hexagon", KIND, cycles / _clock(cycles, microseconds) / 1e3, spread, details)


def _clock(cycles: int, microseconds: int) -> float:
    """Returns cycles per microsecond, rounded to a multiple of 10 if that agrees with both figures."""
    clock = round(cycles / microseconds, -1) or 1
    return clock if abs(cycles / clock - microseconds) <= 1 else cycles / microseconds


@functools.cache
def _packages() -> tuple[Any, Any]:
    try:
        with held_back():
            import onnxruntime
            import onnxruntime_qnn
    except (ImportError, RuntimeError) as error:
        raise missing_extra("hexagon", "onnxruntime-qnn") from error
    if not Path(onnxruntime_qnn.get_qnn_htp_path()).is_file():
        raise InputError(
            "onnxruntime-qnn has no QNN libraries for this machine (its folder contains no libQnnHtp); "
            "run: pip install --force-reinstall onnxruntime-qnn"
        )
    return onnxruntime, onnxruntime_qnn


@functools.cache
def _devices() -> tuple:
    """Returns the plug-in's devices; the plug-in is registered once in a process."""
    ort, qnn = _packages()
    ort.register_execution_provider_library(_PROVIDER, qnn.get_library_path())
    return tuple(device for device in ort.get_ep_devices() if device.ep_name == _PROVIDER)


def _profile(model: bytes, options: dict[str, str]) -> dict[str, int]:
    """Returns the profile that compiling writes, as values by message."""
    with tempfile.TemporaryDirectory(prefix="mobiledets-qnn-") as folder, held_back():
        path = os.path.join(folder, "profile.csv")
        # The profile is complete only after the session has been destroyed.
        _session(model, options | {"profiling_level": "detailed", "profiling_file_path": path})
        return _read_profile(path)


def _session(model: bytes, options: dict[str, str]) -> Any:
    """Creates a session that runs entirely on the (emulated) HTP, or raises."""
    ort, qnn = _packages()
    session_options = ort.SessionOptions()
    session_options.log_severity_level = 3
    session_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    given = {"backend_path": qnn.get_qnn_htp_path(), "offload_graph_io_quantization": "0"}
    session_options.add_provider_for_devices(list(_devices()[:1]), options | given)
    return ort.InferenceSession(model, sess_options=session_options)


def emulation_difference(
    path: str | os.PathLike, samples: Iterable[np.ndarray], variant: str = DEFAULT_VARIANT
) -> dict[str, Any]:
    """Compares the emulated HTP with LiteRT's interpreter on the same images.

    Args:
      path: an int8 .tflite file.
      samples: images [1, height, width, 3] float32 in [-1, 1].
      variant: the chip.

    Returns:
      `images`, the number of images; `outputs`, which maps each output of the network (before any
      post-processing) to {`max_lsb`, `mean_lsb`}, its largest and mean difference in steps of its int8
      scale (LSB); `max_lsb`, the largest of all outputs.

    Raises:
      InputError: the graph writer does not support an operation, or the optional dependency is missing.
      RuntimeError: QNN cannot run the whole graph.
    """
    from tflite_export.graphs.read_tflite import read_graph, tensor_index
    from tflite_export.graphs.write_onnx import to_onnx

    graph = read_graph(path)
    runner = runtime.TensorRunner(path)
    with held_back():
        session = _session(to_onnx(graph), VARIANTS[variant])
    (source,), targets = session.get_inputs(), [output.name for output in session.get_outputs()]
    differences: dict[str, list[np.ndarray]] = {name: [] for name in graph.outputs}
    images = 0
    for sample in samples:
        runner.run(sample)
        with held_back():
            found = session.run(targets, {source.name: _as_uint8(runner.stored(tensor_index(graph.input)))})
        for name, values in zip(graph.outputs, found, strict=True):
            expected = _as_uint8(runner.stored(tensor_index(name)))
            differences[name].append(np.abs(values.astype(int) - expected).ravel())
        images += 1
    outputs = {
        name.split(";")[0].split("#")[0]: {
            "max_lsb": int(max(d.max() for d in found)),
            "mean_lsb": float(np.concatenate(found).mean()),
        }
        for name, found in differences.items()
    }
    return {"images": images, "outputs": outputs, "max_lsb": max(o["max_lsb"] for o in outputs.values())}


def _as_uint8(stored: np.ndarray) -> np.ndarray:
    return (stored.astype(np.int16) + 128).astype(np.uint8)


def _read_profile(path: str) -> dict[str, int]:
    """Reads a profile. The columns are time, category, value, unit, source, level, name."""
    found = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.reader(file):
                if len(row) >= 7 and row[2].lstrip("-").isdigit():
                    found[row[6].strip()] = int(row[2])
    return found
