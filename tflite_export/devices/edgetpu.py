"""Coral Edge TPU: a static check of any .tflite file.

Running the vendor's compiler and modelling the latency are separate modules of this package.

The compiler maps operations as one subgraph that starts at the input; everything after the first
operation that it rejects stays on the CPU. The check names each operation that the compiler would
reject, and why. Sources: the table of `edgetpu_ops`, which describes compiler 16; statuses and failures in
compiler logs of versions 2 to 16.
"""

import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mobiledets_tf.errors import unknown_name
from mobiledets_tf.version import __version__
from tflite_export.devices import Finding, Latency, edgetpu_ops, edgetpu_roofline
from tflite_export.devices.edgetpu_compiler import compile_model
from tflite_export.devices.int8_check import finding, finding_of_file
from tflite_export.tflite import blocks
from tflite_export.tflite.model_file import CPU_BY_DESIGN, ModelFile, Operator, Tensor

if TYPE_CHECKING:
    from tflite_export.graphs import Graph

__all__ = ["SUPPORTED_OPS", "check", "compile_model", "coverage", "measure_graph", "parameters", "versions"]

KIND = "modelled"
VARIANTS = {"pixel4": None}
DEFAULT_VARIANT = "pixel4"

# The newest supported version of each operation; `edgetpu_ops` says where the rows come from.
SUPPORTED_OPS = {name: row.version for name, row in edgetpu_ops.ROWS.items()}
# The compiler targets a single chip, so there is nothing to choose.
COMPILE_VARIANTS = ()
INTEGER_TYPES = frozenset({"INT8", "UINT8"})
MAX_SOFTMAX = 16_000
# Space for parameters on a chip of 8 MiB, as compiler logs report it.
CACHE_BYTES = 7 * 2**20
INNER_DIMENSIONS = 3
MEAN_MULTIPLE = 4


def versions(variant: str = DEFAULT_VARIANT) -> dict[str, str]:
    """Returns the versions that a modelled latency depends on."""
    del variant
    return {"mobiledets-tf": __version__}


def measure(
    path: str | os.PathLike, threads: int = 1, runs: int = 1, variant: str = DEFAULT_VARIANT
) -> Latency:
    """Models the latency of an int8 .tflite file, without the operations that stay on the CPU."""
    from tflite_export.graphs.read_tflite import read_graph

    del threads, runs
    return measure_graph(read_graph(path), variant)


def measure_graph(graph: "Graph", variant: str = DEFAULT_VARIANT) -> Latency:
    """Models the latency of a graph; see `edgetpu_roofline`."""
    if variant not in VARIANTS:
        raise unknown_name("variant of edgetpu", variant, VARIANTS)
    return Latency("edgetpu", KIND, edgetpu_roofline.milliseconds(graph), 0.0, {"variant": variant})


def check(model: ModelFile) -> list[Finding]:
    """Returns every reason why operations of a file cannot run on the Edge TPU; empty if it is ready."""
    findings = []
    if model.subgraphs != 1:
        findings.append(finding_of_file(f"{model.subgraphs} subgraphs in the file; allowed: 1"))
    for op in model.operators:
        if op.name not in CPU_BY_DESIGN:
            findings += [finding(op, tensor, reason) for tensor, reason in _faults(op)]
    if not any(op.name in SUPPORTED_OPS for op in model.operators):
        findings.append(finding_of_file("the file has no operation that the Edge TPU supports"))
    count = coverage(model)["subgraphs"]
    if count > 1:
        findings.append(finding_of_file(f"{count} Edge TPU subgraphs; the compiler maps only the first one"))
    return findings


def coverage(model: ModelFile) -> dict[str, Any]:
    """Predicts from the static check what the compiler would map.

    Returns:
      `operations`, the number of operations in the file; `mapped`, the number in the first subgraph;
      `subgraphs`, the number of subgraphs that could be mapped; `first_on_cpu`, the operation at which
      the first subgraph ends (`op_index`, `op`, `block`), or None.
    """
    epochs = _epochs(model.operators, [_is_mappable(op) for op in model.operators])
    on_chip = {epoch for epoch in epochs if epoch % 2 == 0}
    first = min(on_chip, default=0)
    rest = [op for op, epoch in zip(model.operators, epochs, strict=True) if epoch != first]
    return {
        "operations": len(epochs),
        "mapped": len(epochs) - len(rest),
        "subgraphs": len(on_chip),
        "first_on_cpu": _place(rest[0]) if rest else None,
    }


def _place(op: Operator) -> dict[str, Any]:
    return {"op_index": op.index, "op": op.name, "block": blocks.of_operator(op)}


def _epochs(operators: tuple[Operator, ...], mappable: list[bool]) -> list[int]:
    """Returns the turn in which each operation runs: even turns run on the Edge TPU, odd ones on the CPU.

    An operation runs in the earliest turn of its kind that does not precede the turns of its inputs.
    This is how TFLite partitions a graph for a delegate.
    """
    made: dict[int, int] = {}
    epochs = []
    for op, on_chip in zip(operators, mappable, strict=True):
        epoch = max((made.get(id(tensor), 0) for tensor in op.inputs), default=0)
        epoch += (epoch % 2 == 0) != on_chip
        epochs.append(epoch)
        made |= {id(tensor): epoch for tensor in op.outputs}
    return epochs


def _is_mappable(op: Operator) -> bool:
    return op.name not in CPU_BY_DESIGN and next(_faults(op), None) is None


def parameters(model: ModelFile) -> dict[str, int | bool]:
    """Compares the size of constants with the chip's cache; the excess is streamed from the host."""
    size = model.constants_size()
    return {"bytes": size, "cache_bytes": CACHE_BYTES, "streamed": size > CACHE_BYTES}


def _faults(op: Operator) -> Iterator[tuple[Tensor | None, str]]:
    """Yields (tensor, reason) for each fault of an operation, at most one of each kind."""
    out = op.outputs[0] if op.outputs else None
    if op.name not in SUPPORTED_OPS:
        yield out, f"{'custom operation' if op.is_custom else 'operation'} {op.name} is not supported"
        return
    if op.version > SUPPORTED_OPS[op.name]:
        yield out, f"version {op.version} of {op.name}; allowed: at most {SUPPORTED_OPS[op.name]}"
    for rule in (_type_fault, _shape_fault, _rank_fault):
        found = ((tensor, rule(tensor)) for tensor in op.activations)
        yield from itertools.islice(((tensor, reason) for tensor, reason in found if reason), 1)
    if op.name in WEIGHTED and len(op.inputs) > 1 and not op.inputs[1].is_constant:
        yield op.inputs[1], "weights are not constant; allowed: constant weights"
    if reason := _OPTION_RULES.get(op.name, lambda op: "")(op):
        yield out, reason


# Operations whose second input has to be constant weights.
WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})


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
    return f"shape {shape}; only the {INNER_DIMENSIONS} innermost dimensions may exceed 1" if wrong else ""


# Rules for single operations: each returns the fault of an operator, or ''. If the file leaves out an
# operation's options, the schema's defaults apply, and these are all allowed.


def _activation_fault(op: Operator) -> str:
    return "fused activation; allowed: none" if getattr(op.options, "fusedActivationFunction", 0) else ""


def _dilation_fault(op: Operator) -> str:
    height, width = (getattr(op.options, f"dilation{side}Factor", 1) for side in "HW")
    return "" if height == width else f"dilation {height}x{width}; allowed: equal in both directions"


def _concatenation_fault(op: Operator) -> str:
    if len(op.inputs) > 2 and any(tensor.is_constant for tensor in op.inputs):
        return f"a constant among {len(op.inputs)} inputs; allowed with a constant: 2 inputs"
    return _activation_fault(op)


def _dense_fault(op: Operator) -> str:
    if getattr(op.options, "weightsFormat", 0):
        return "weights are shuffled; allowed: the default format"
    shape = op.outputs[0].shape if op.outputs else ()
    return _not_flat("output", shape) if _rank_used(shape) > 1 else ""


def _rank_used(shape: tuple[int, ...]) -> int:
    return sum(side > 1 for side in shape)


def _not_flat(what: str, shape: tuple[int, ...]) -> str:
    return f"{what} of shape {'x'.join(map(str, shape))}; allowed: one dimension"


def _stride_fault(op: Operator) -> str:
    masks = (getattr(op.options, name, 0) for name in ("ellipsisMask", "newAxisMask"))
    if any(masks):
        return "ellipsis or new-axis mask; allowed: neither"
    strides = op.inputs[3].values if len(op.inputs) > 3 else ()
    return f"strides {strides}; allowed: 1" if any(stride != 1 for stride in strides) else ""


def _softmax_fault(op: Operator) -> str:
    shape = op.inputs[0].shape if op.inputs else ()
    size = shape[-1] if shape else 0
    if size > MAX_SOFTMAX:
        return f"softmax over {size} elements; allowed: at most {MAX_SOFTMAX}"
    return _not_flat("input", shape) if _rank_used(shape) > 1 else ""


def _reduction_fault(op: Operator) -> str:
    """Checks reductions: never over the batch; MEAN over channels only for multiples of four."""
    if len(op.inputs) < 2:
        return ""
    shape = op.inputs[0].shape
    axes = {axis % len(shape) for axis in op.inputs[1].values} if shape else set()
    if 0 in axes and len(shape) == 4:
        return "reduces the batch; allowed: height, width, channels"
    if op.name == "MEAN" and len(shape) == 4 and 3 in axes and shape[3] % MEAN_MULTIPLE:
        return f"mean over {shape[3]} channels; allowed: a multiple of {MEAN_MULTIPLE}"
    return ""


def _padding_fault(op: Operator) -> str:
    batch = op.inputs[1].values[:2] if len(op.inputs) > 1 and len(op.inputs[0].shape) == 4 else ()
    return "pads the batch; allowed: height, width, channels" if any(batch) else ""


def _packing_fault(op: Operator) -> str:
    axis = getattr(op.options, "axis", None)
    return "packs along the batch; allowed: the other dimensions" if axis == 0 and len(op.inputs) > 1 else ""


def _slope_fault(op: Operator) -> str:
    shape = op.inputs[1].shape if len(op.inputs) > 1 else ()
    return _not_flat("slope", shape) if _rank_used(shape) > 1 else ""


_OPTION_RULES = {
    "AVERAGE_POOL_2D": _activation_fault,
    "MAX_POOL_2D": _activation_fault,
    "CONCATENATION": _concatenation_fault,
    "CONV_2D": _dilation_fault,
    "DEPTHWISE_CONV_2D": _dilation_fault,
    "FULLY_CONNECTED": _dense_fault,
    "MEAN": _reduction_fault,
    "PACK": _packing_fault,
    "PAD": _padding_fault,
    "PRELU": _slope_fault,
    "REDUCE_MAX": _reduction_fault,
    "REDUCE_MIN": _reduction_fault,
    "SOFTMAX": _softmax_fault,
    "STRIDED_SLICE": _stride_fault,
}
