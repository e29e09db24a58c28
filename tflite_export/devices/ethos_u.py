"""Arm Ethos-U, estimated by Arm's compiler Vela: cycles and time per layer, coverage of the NPU."""

import collections
import contextlib
import csv
import functools
import importlib
import importlib.metadata
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from mobiledets_tf.errors import InputError, missing_extra, unknown_name
from mobiledets_tf.native_output import held_back
from tflite_export.devices import Compilation, Finding, Latency, process
from tflite_export.devices.int8_check import check, finding, finding_of_file
from tflite_export.graphs import Graph
from tflite_export.tflite import blocks, model_file
from tflite_export.tflite.model_file import CPU_BY_DESIGN

__all__ = [
    "COMPILE_VARIANTS",
    "DEFAULT_VARIANT",
    "KIND",
    "VARIANTS",
    "check",
    "compile_model",
    "layers",
    "measure",
    "measure_graph",
    "versions",
]

KIND = "compiled"
# (accelerator, system config, memory mode), as named in Vela's own configuration file Arm/vela.ini.
VARIANTS = {
    "u55-256": ("ethos-u55-256", "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "u65-512": ("ethos-u65-512", "Ethos_U65_High_End", "Dedicated_Sram"),
    "u85-1024": ("ethos-u85-1024", "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram"),
}
DEFAULT_VARIANT = "u65-512"
COMPILE_VARIANTS = tuple(VARIANTS)
TIMEOUT_S = 600
_PACKAGE = "ethos-u-vela"
_SCRIPT = "import sys; from ethosu.vela.vela import main; sys.exit(main(sys.argv[1:]))"


def versions(variant: str = DEFAULT_VARIANT) -> dict[str, str]:
    """Returns the versions and settings that the latency depends on."""
    accelerator, system, memory = _variant(variant)
    _vela()
    version = importlib.metadata.version(_PACKAGE)
    return {_PACKAGE: version, "accelerator": accelerator, "system_config": system, "memory_mode": memory}


def measure(
    path: str | os.PathLike, threads: int = 1, runs: int = 1, variant: str = DEFAULT_VARIANT
) -> Latency:
    """Returns Vela's estimate for a .tflite file.

    Raises:
      InputError: the optional dependency is not installed, or the variant is unknown.
      RuntimeError: Vela cannot compile the file; its last line of output is in the message.
    """
    del threads, runs  # The estimate is deterministic.
    with tempfile.TemporaryDirectory(prefix="mobiledets-vela-") as folder:
        _compile(path, folder, variant)
        return _latency(_summary(folder), _layers(folder), variant)


def measure_graph(graph: Graph, variant: str = DEFAULT_VARIANT) -> Latency:
    """Returns Vela's estimate for a graph; raises the same errors as `measure`."""
    from tflite_export.graphs.write_tflite import temporary_file

    with temporary_file(graph) as path:
        return measure(path, variant=variant)


def layers(path: str | os.PathLike, variant: str = DEFAULT_VARIANT) -> list[dict[str, str]]:
    """Returns the rows of Vela's table, one per operation: `Target`, `Op Cycles`, `Util% (MAC)`, `Name`."""
    with tempfile.TemporaryDirectory(prefix="mobiledets-vela-") as folder:
        _compile(path, folder, variant)
        return _layers(folder)


def compile_model(
    path: str | os.PathLike, output_dir: str | os.PathLike, variant: str = DEFAULT_VARIANT
) -> Compilation:
    """Compiles a file for the NPU and writes NAME_vela.tflite to `output_dir`.

    Returns:
      The compilation. Its result contains `variant`, `npu_operations`, `cpu_operations`, `cycles` and
      `layers`, which is Vela's table with this project's block names; its findings name the
      operations that stay on the CPU.
    """
    path, output_dir = Path(path), Path(output_dir)
    command = " ".join(["vela", *_arguments(path, output_dir, variant)])
    model = model_file.read(path)
    try:
        _vela()
    except InputError as error:
        return Compilation("not compiled", command, str(error))
    with tempfile.TemporaryDirectory(prefix="mobiledets-vela-") as folder:
        # Vela runs in its own process, so that a hang or a crash of it can be handled.
        arguments = _arguments(path, folder, variant)
        code, log = process.run("vela", [sys.executable, "-c", _SCRIPT, *arguments], TIMEOUT_S)
        if reason := process.fault("vela", code):
            return Compilation("failed", command, f"{reason}: {_last_line(log)}", log=log)
        made = Path(folder) / f"{path.stem}_vela.tflite"
        if not made.is_file():
            return Compilation("failed", command, "vela reported no error but wrote no file", log=log)
        output_dir.mkdir(parents=True, exist_ok=True)
        target = output_dir / made.name
        temporary = output_dir / f".{made.name}.part"
        shutil.copyfile(made, temporary)
        os.replace(temporary, target)
        rows = _layers(folder)
    table = [_layer(row) for row in rows]
    counts = collections.Counter(row["target"] for row in table)
    result = {
        "variant": variant,
        "npu_operations": counts["NPU"],
        "cpu_operations": counts["CPU"],
        "cycles": sum(row["cycles"] for row in table),
        "layers": table,
    }
    return Compilation("compiled", command, "", str(target), log, result, _left_on_cpu(model, rows, variant))


def _layer(row: dict[str, str]) -> dict[str, Any]:
    """Converts a row of Vela's table for a report."""
    return {
        "op": row["NNG Operator"],
        "target": row["Target"],
        "cycles": int(float(row["Op Cycles"])),
        "mac_utilization": float(row["Util% (MAC)"]) / 100,
        "block": blocks.of_name(row["Name"]),
        "tensor": row["Name"],
    }


def _left_on_cpu(model: model_file.ModelFile, rows: list[dict[str, str]], variant: str) -> list[Finding]:
    """Returns one finding for each operation of the file that Vela leaves on the CPU."""
    if not any(row["Target"] == "NPU" for row in rows):
        return [finding_of_file(f"no operation of the file runs on the NPU of {variant}")]
    names = {row["Name"] for row in rows if row["Target"] != "NPU"}
    left = (op for op in model.operators if any(tensor.name in names for tensor in op.outputs))
    reason = f"Vela leaves this operation on the CPU for {variant}"
    return [finding(op, op.outputs[0], reason) for op in left if op.name not in CPU_BY_DESIGN]


def _variant(name: str) -> tuple[str, str, str]:
    if name not in VARIANTS:
        raise unknown_name("variant of ethos_u", name, VARIANTS)
    return VARIANTS[name]


@functools.cache
def _vela() -> Any:
    try:
        return importlib.import_module("ethosu.vela.vela")
    except ImportError as error:
        raise missing_extra("ethos_u", _PACKAGE) from error


def _arguments(path: str | os.PathLike, folder: str | os.PathLike, variant: str) -> list[str]:
    accelerator, system, memory = _variant(variant)
    return [
        str(path),
        f"--accelerator-config={accelerator}",
        f"--system-config={system}",
        f"--memory-mode={memory}",
        "--config=Arm/vela.ini",
        "--verbose-performance",
        f"--output-dir={folder}",
    ]


def _compile(path: str | os.PathLike, folder: str | os.PathLike, variant: str) -> str:
    """Runs Vela in this process, because starting another costs a second; returns its output."""
    arguments = _arguments(path, folder, variant)
    vela, printed = _vela(), io.StringIO()
    try:
        # Vela's compiler for newer chips is native code whose output bypasses Python.
        with held_back(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            _main(vela, arguments, printed)
    except RuntimeError as error:  # Vela's passes raise any type; held_back converts it to RuntimeError.
        raise RuntimeError(f"vela failed: {_last_line(str(error))}") from error
    return printed.getvalue()


def _main(vela: Any, arguments: list[str], printed: io.StringIO) -> None:
    try:
        code = vela.main(arguments)
    except SystemExit as error:
        code = error.code
    if code:
        raise RuntimeError(printed.getvalue().strip() or f"code {code}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:300]


def _summary(folder: str) -> dict[str, str]:
    found = list(Path(folder).glob("*_summary_*.csv"))
    if not found:
        raise RuntimeError("vela wrote no summary: no operation of the file runs on the NPU")
    with open(found[0], encoding="utf-8", newline="") as file:
        return next(csv.DictReader(file))


def _layers(folder: str) -> list[dict[str, str]]:
    found = list(Path(folder).glob("*_per-layer.csv"))
    if not found:
        return []
    with open(found[0], encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _latency(summary: dict[str, str], rows: list[dict[str, str]], variant: str) -> Latency:
    milliseconds = float(summary["inference_time"]) * 1e3
    if not any(row["Target"] == "NPU" for row in rows):
        raise RuntimeError(f"no operation of the file runs on the NPU of {variant}, so there is no estimate")
    if not 0 < milliseconds < float("inf"):
        raise RuntimeError(f"vela reports an inference time of {summary['inference_time']!r} s")
    on_npu = sum(row["Target"] == "NPU" for row in rows)
    details = {
        "variant": variant,
        "cycles": int(float(summary["cycles_total"])),
        "npu_operations": on_npu,
        "cpu_operations": len(rows) - on_npu,
        "sram_kib": float(summary["sram_memory_used"]),
    }
    return Latency("ethos_u", KIND, milliseconds, 0.0, details)
