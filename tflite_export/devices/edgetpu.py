"""Coral Edge TPU: a static check of any .tflite file, and the vendor's compiler where installed.

The compiler maps the longest run of supported int8 operations from the input on; whatever
follows the first unsupported one stays on the CPU. The check names each operation that it
would refuse, and why. Sources: Coral's table of supported operations, and statuses and
failures in compiler logs of versions 2 to 16.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tflite_export import blocks
from tflite_export.devices import Compilation, Finding
from tflite_export.inspect import ModelFile, Operator, Tensor
from tflite_export.postprocess import CUSTOM_OP

COMPILER = "edgetpu_compiler"
COMPILER_TIMEOUT_S = 600

SUPPORTED_OPS = frozenset({
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS",
    "FULLY_CONNECTED", "L2_NORMALIZATION", "LOGISTIC", "MAX_POOL_2D", "MAXIMUM", "MEAN", "MINIMUM", "MUL",
    "PACK", "PAD", "PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RELU_N1_TO_1",
    "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT",
    "SQUEEZE", "STRIDED_SLICE", "SUB", "TANH", "UNIDIRECTIONAL_SEQUENCE_LSTM",
})  # fmt: skip
# These end a network on the CPU by design; they are no fault.
CPU_BY_DESIGN = frozenset({"DEQUANTIZE", CUSTOM_OP})
# The newest versions that compiler 16 parses, where a newer one is known to be refused.
MAX_VERSIONS = {"CONV_2D": 5, "TRANSPOSE_CONV": 3}
INTEGER_TYPES = frozenset({"INT8", "UINT8"})
MAX_SOFTMAX = 16_000
# What compiler logs show as free for parameters on a chip of 8 MiB.
CACHE_BYTES = 7 * 2**20
INNER_DIMENSIONS = 3


def check(model: ModelFile) -> list[Finding]:
    """Everything that keeps operations of a file off the Edge TPU; empty for a file that is ready."""
    findings = []
    if model.subgraphs != 1:
        findings.append(_of_file(f"{model.subgraphs} subgraphs in the file; allowed: 1"))
    for op in model.operators:
        if op.name not in CPU_BY_DESIGN:
            findings += [_finding(op, tensor, reason) for tensor, reason in _faults(op)]
    if not any(op.name in SUPPORTED_OPS for op in model.operators):
        findings.append(_of_file("no operation that the Edge TPU runs"))
    return findings


def parameters(model: ModelFile) -> dict[str, int | bool]:
    """Bytes of constants against the chip's cache; what does not fit is streamed from the host."""
    size = model.constants_size()
    return {"bytes": size, "cache_bytes": CACHE_BYTES, "streamed": size > CACHE_BYTES}


def _of_file(reason: str) -> Finding:
    return Finding(None, None, None, None, reason)


def _finding(op: Operator, tensor: Tensor | None, reason: str) -> Finding:
    return Finding(op.index, op.name, tensor.name if tensor else None, blocks.of_operator(op), reason)


def _faults(op: Operator) -> Iterator[tuple[Tensor | None, str]]:
    """(tensor, reason) for each thing wrong with an operation; one fault of each kind."""
    out = op.outputs[0] if op.outputs else None
    if op.name not in SUPPORTED_OPS:
        yield out, f"{'custom operation' if op.is_custom else 'operation'} {op.name} is not supported"
        return
    if op.version > MAX_VERSIONS.get(op.name, op.version):
        yield out, f"version {op.version} of {op.name}; allowed: at most {MAX_VERSIONS[op.name]}"
    for rule in (_type_fault, _shape_fault, _rank_fault):
        found = ((tensor, rule(tensor)) for tensor in op.activations)
        yield from itertools.islice(((tensor, reason) for tensor, reason in found if reason), 1)
    if reason := _OPTION_RULES.get(op.name, lambda op: "")(op):
        yield out, reason


def _type_fault(tensor: Tensor) -> str:
    if tensor.dtype not in INTEGER_TYPES:
        return f"tensor is {tensor.dtype.lower()}; allowed: int8, uint8"
    return "" if tensor.scales else f"{tensor.dtype.lower()} tensor without a scale"


def _shape_fault(tensor: Tensor) -> str:
    return "shape is dynamic; allowed: static shapes" if tensor.is_dynamic else ""


def _rank_fault(tensor: Tensor) -> str:
    outer = tensor.shape[:-INNER_DIMENSIONS]
    wrong = any(side > 1 for side in outer)
    shape = "x".join(map(str, tensor.shape))
    return f"shape {shape}; only the {INNER_DIMENSIONS} innermost sides may be above 1" if wrong else ""


# Rules for single operations: an operator to its fault, or ''. An operation whose options the
# file leaves out has the schema's defaults, which are all allowed.


def _activation_fault(op: Operator) -> str:
    return "fused activation; allowed: none" if getattr(op.options, "fusedActivationFunction", 0) else ""


def _dilation_fault(op: Operator) -> str:
    height, width = (getattr(op.options, f"dilation{side}Factor", 1) for side in "HW")
    return "" if height == width else f"dilation {height}x{width}; allowed: equal in both directions"


def _concatenation_fault(op: Operator) -> str:
    if len(op.inputs) > 2 and any(tensor.is_constant for tensor in op.inputs):
        return f"a constant among {len(op.inputs)} inputs; allowed: two inputs then"
    return _activation_fault(op)


def _weights_fault(op: Operator) -> str:
    shuffled = getattr(op.options, "weightsFormat", 0)
    return "weights are shuffled; allowed: the default format" if shuffled else ""


def _mask_fault(op: Operator) -> str:
    masks = (getattr(op.options, name, 0) for name in ("ellipsisMask", "newAxisMask"))
    return "ellipsis or new-axis mask; allowed: neither" if any(masks) else ""


def _softmax_fault(op: Operator) -> str:
    size = op.inputs[0].shape[-1] if op.inputs and op.inputs[0].shape else 0
    return f"softmax over {size} elements; allowed: at most {MAX_SOFTMAX}" if size > MAX_SOFTMAX else ""


_OPTION_RULES = {
    "AVERAGE_POOL_2D": _activation_fault,
    "MAX_POOL_2D": _activation_fault,
    "CONCATENATION": _concatenation_fault,
    "CONV_2D": _dilation_fault,
    "DEPTHWISE_CONV_2D": _dilation_fault,
    "FULLY_CONNECTED": _weights_fault,
    "STRIDED_SLICE": _mask_fault,
    "SOFTMAX": _softmax_fault,
}


def compile_model(path: str | os.PathLike, output_dir: str | os.PathLike) -> Compilation:
    """Runs the vendor's compiler where it is installed.

    Args:
      path: the .tflite file.
      output_dir: where the compiled file goes, as NAME_edgetpu.tflite.
    """
    path, output_dir = Path(path).resolve(), Path(output_dir).resolve()
    command = [COMPILER, "-s", "-o", str(output_dir), str(path)]
    found = shutil.which(COMPILER)
    if not found:
        return Compilation("not compiled", " ".join(command), f"{COMPILER} is not installed")
    output_dir.mkdir(parents=True, exist_ok=True)
    # In a folder of its own first: a compiler that dies leaves nothing in the user's.
    with tempfile.TemporaryDirectory(prefix=".edgetpu-", dir=output_dir) as folder:
        reason, log = _run([found, "-s", "-o", folder, str(path)])
        made = Path(folder) / f"{path.stem}_edgetpu.tflite"
        if not reason and not made.is_file():
            reason = f"{COMPILER} ended without an error and wrote no file"
        if reason:
            return Compilation("failed", " ".join(command), reason, None, log)
        target = output_dir / made.name
        os.replace(made, target)
    return Compilation("compiled", " ".join(command), "", str(target), log)


def _run(command: list[str]) -> tuple[str, str]:
    """(why it failed or '', what it printed)."""
    try:
        # A session of its own: the compiler starts a child, which has to go with it.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return f"{COMPILER} cannot be started: {error.strerror}", ""
    reason = ""
    try:
        printed, _ = process.communicate(timeout=COMPILER_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        reason = f"{COMPILER} did not end within {COMPILER_TIMEOUT_S} s"
        _end(process)
        printed, _ = process.communicate()
    except BaseException:
        _end(process)
        raise
    if process.returncode and not reason:
        reason = f"{COMPILER} ended with code {process.returncode}"
    return reason, printed.decode("utf-8", "replace")


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
