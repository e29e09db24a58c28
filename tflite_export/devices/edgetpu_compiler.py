"""Runs Coral's `edgetpu_compiler` if it is installed, and interprets its output."""

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mobiledets_tf.errors import InputError
from tflite_export.devices import Compilation, Finding, edgetpu_log, process
from tflite_export.devices.edgetpu_log import CompilerLog
from tflite_export.tflite import blocks, metadata, model_file
from tflite_export.tflite.model_file import CPU_BY_DESIGN, ModelFile, Operator

COMPILER = "edgetpu_compiler"
TIMEOUT_S = 600
# An "Internal compiler error" sometimes disappears when the compiler is run again.
ATTEMPTS = 3
# The compiler's table uses one name for all custom operations.
_CUSTOM = "CUSTOM"


def compile_model(path: str | os.PathLike, output_dir: str | os.PathLike) -> Compilation:
    """Compiles a file with the vendor's compiler.

    Args:
      path: the .tflite file.
      output_dir: folder for NAME_edgetpu.tflite; a failure leaves nothing there. The compiled file gets
        the metadata, labels, signature and output order of `path`, which the compiler drops.

    Raises:
      InputError: the file is not a .tflite file, or is already compiled.
    """
    path, output_dir = Path(path).resolve(), Path(output_dir).resolve()
    command = " ".join(_arguments(COMPILER, output_dir, path))
    model, found = model_file.read(path), shutil.which(COMPILER)
    if not found:
        return Compilation("not compiled", command, f"{COMPILER} is not installed")
    model_file.refuse_compiled(model, path, "give the file that it was compiled from")
    output_dir.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        # Compile in a separate folder first, so that a compiler crash leaves nothing in the user's folder.
        with tempfile.TemporaryDirectory(prefix=".edgetpu-", dir=output_dir) as folder:
            code, printed = process.run(COMPILER, _arguments(found, Path(folder), path), TIMEOUT_S)
            log = edgetpu_log.parse(printed + _operation_log(Path(folder), path))
            made = Path(folder) / f"{path.stem}_edgetpu.tflite"
            reason = _fault(code, log, made, printed)
            if not reason:
                made.write_bytes(metadata.restored(made.read_bytes(), path.read_bytes()))
                os.replace(made, output_dir / made.name)
                result, output = _result(log, model, attempt), str(output_dir / made.name)
                return Compilation("compiled", command, "", output, printed, result, left_out(log, model))
        if edgetpu_log.INTERNAL_ERROR not in printed:
            break
    return Compilation("failed", command, reason, None, printed, _result(log, model, attempt))


def _arguments(compiler: str, output_dir: Path, path: Path) -> list[str]:
    """Returns the compiler's arguments: `-s` prints operations; absolute paths cannot be read as flags."""
    return [compiler, "-s", "-o", str(output_dir), str(path)]


def _operation_log(folder: Path, path: Path) -> str:
    written = folder / f"{path.stem}_edgetpu.log"
    return "\n" + written.read_text("utf-8", "replace") if written.is_file() else ""


def _fault(code: int | str, log: CompilerLog, made: Path, printed: str) -> str:
    """Returns why there is no trustworthy compiled file, or ''."""
    why = log.error or _last_line(printed)
    if reason := process.fault(COMPILER, code):
        return f"{reason}{': ' + why if why and not isinstance(code, str) else ''}"
    if log.succeeded is False:
        return f"{COMPILER} failed{': ' + why if why else ''}"
    if not made.is_file():
        return f"{COMPILER} reported no error but wrote no file"
    try:
        model_file.read(made)
    except InputError:
        return f"{COMPILER} reported no error, but its output is not a .tflite file"
    return ""


def _result(log: CompilerLog, model: ModelFile, attempts: int) -> dict[str, Any]:
    first = first_on_cpu(log, model)
    named = None
    if first is not None:
        operator, status = first
        named = {
            "op_index": operator.index,
            "op": operator.name,
            "block": blocks.of_operator(operator),
            "status": status,
        }
    return log.to_dict() | {"attempts": attempts, "first_on_cpu": named, "ready": verdict(log, model)}


def _last_line(printed: str) -> str:
    return next((" ".join(line.split()) for line in reversed(printed.splitlines()) if line.strip()), "")


def verdict(log: CompilerLog, model: ModelFile) -> bool | None:
    """Returns whether all operations run on the Edge TPU except those that stay on the CPU by design.

    The compiler's own count decides. Returns None if the log has no count, or counts a number of operations
    that differs from the model's.
    """
    if log.on_cpu is None or log.on_edgetpu is None:
        return None
    if log.on_cpu + log.on_edgetpu != len(model.operators):
        return None
    return log.on_cpu <= sum(op.name in CPU_BY_DESIGN for op in model.operators)


def left_out(log: CompilerLog, model: ModelFile) -> list[Finding]:
    """Returns a finding for each operation kind and status that the compiler needlessly left on the CPU."""
    allowed = {_kind(op) for op in model.operators if op.name in CPU_BY_DESIGN}
    findings = []
    for row in log.operators:
        if not row.is_mapped and row.op not in allowed:
            mapped = sum(other.count for other in log.operators if other.op == row.op and other.is_mapped)
            first = next(iter([op for op in model.operators if _kind(op) == row.op][mapped:]), None)
            reason = f"the compiler left {row.count} on the CPU: {row.status}"
            if first is None:
                findings.append(Finding(None, row.op, None, None, reason))
                continue
            tensor = first.outputs[0].name if first.outputs else None
            findings.append(Finding(first.index, first.name, tensor, blocks.of_operator(first), reason))
    return sorted(findings, key=lambda found: math.inf if found.op_index is None else found.op_index)


def _kind(op: Operator) -> str:
    """Returns the name that the compiler's table uses for an operation."""
    return _CUSTOM if op.is_custom else op.name


def first_on_cpu(log: CompilerLog, model: ModelFile) -> tuple[Operator, str] | None:
    """Returns the first operation in file order that the compiler left on the CPU, and why.

    The table only counts operations by kind and status. Since the compiler maps from the input on, the
    first operations of a kind with both statuses are the mapped ones.
    """
    found = []
    for kind in {row.op for row in log.operators if not row.is_mapped}:
        mapped = sum(row.count for row in log.operators if row.op == kind and row.is_mapped)
        operators = [op for op in model.operators if _kind(op) == kind]
        statuses = [row.status for row in log.operators if row.op == kind and not row.is_mapped]
        # A status that names a limit is more informative than that of the operations after it.
        statuses.sort(key=lambda status: status.startswith("More than one subgraph"))
        found += [(op, statuses[0]) for op in operators[mapped : mapped + 1]]
    return min(found, key=lambda item: item[0].index, default=None)
