"""Static check for any int8 accelerator: types, shapes and a single subgraph."""

from tflite_export.devices import Finding
from tflite_export.tflite import blocks
from tflite_export.tflite.model_file import CPU_BY_DESIGN, ModelFile, Operator, Tensor

_NUMBERS = frozenset({"INT8", "UINT8", "INT16", "INT32"})


def check(model: ModelFile) -> list[Finding]:
    """Returns the reasons why operations cannot run on any int8 accelerator, one finding per operation."""
    findings = []
    if model.subgraphs != 1:
        reason = f"{model.subgraphs} subgraphs in the file; allowed: 1"
        findings.append(finding_of_file(reason))
    for op in model.operators:
        if op.name not in CPU_BY_DESIGN:
            found = ((tensor, _fault(tensor)) for tensor in op.activations)
            findings += [finding(op, tensor, reason) for tensor, reason in found if reason][:1]
    return findings


def _fault(tensor: Tensor) -> str:
    if tensor.dtype not in _NUMBERS:
        return f"tensor is {tensor.dtype.lower()}; allowed: int8"
    return "shape is dynamic; allowed: static shapes" if tensor.is_dynamic else ""


def finding_of_file(reason: str) -> Finding:
    """Returns a finding about the whole file."""
    return Finding(None, None, None, None, reason)


def finding(op: Operator, tensor: Tensor | None, reason: str) -> Finding:
    """Returns a finding about an operation, with this project's name of its block."""
    return Finding(op.index, op.name, tensor.name if tensor else None, blocks.of_operator(op), reason)
