"""Devices that a network can be measured, simulated, estimated, checked or compiled for.

Each device is a module of this package and implements what it supports. A device that reports times has:
  KIND, VARIANTS, DEFAULT_VARIANT     how its times are obtained; the chips it represents
  measure(path, threads, runs, variant) -> Latency     latency of a .tflite file
  measure_graph(graph, variant) -> Latency             latency of a graph of `tflite_export.graphs`
  versions(variant) -> dict                            versions of everything that its figures depend on
A device that compiles has `check(model) -> list[Finding]`, COMPILE_VARIANTS and
`compile_model(path, output_dir, variant) -> Compilation`. To add a device, write its module and list its
name below.
"""

import dataclasses
import importlib
from types import ModuleType
from typing import Any

# Devices by capability; their modules are imported on demand.
MEASURING = ("host_cpu", "coral", "hexagon", "ethos_u", "adb")
COMPILING = ("edgetpu", "hexagon", "ethos_u")
# Devices that report a time for a network, of whatever kind; `mobiledets-latency` offers these.
TIMING = ("host_cpu", "coral", "hexagon", "ethos_u", "edgetpu")
# The subset of these that runs the network, and so accepts `threads` and `runs`.
RUNNING = ("host_cpu", "coral")
# Devices whose networks the user times on another machine: a board (csv), or a phone through adb.
ELSEWHERE = ("csv", "adb")


def load(name: str) -> ModuleType:
    """Returns the module of one of the devices listed above."""
    return importlib.import_module(f"{__name__}.{name}")


@dataclasses.dataclass(frozen=True)
class Latency:
    """Latency of one inference.

    Attributes:
      device: name of the device.
      kind: one of `mobiledets_tf.latency.kinds.KINDS`.
      median_ms: median of the timed runs (`details["statistic"]` says which runs), or the only figure
        of a device that does not measure.
      spread: half the distance between the 10th and 90th percentile of all runs, divided by the median.
      details: settings and further figures, by name.
    """

    device: str
    kind: str
    median_ms: float
    spread: float
    details: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict for a report."""
        fields = {name: getattr(self, name) for name in ("device", "kind", "median_ms", "spread")}
        return fields | self.details


@dataclasses.dataclass(frozen=True)
class Finding:
    """One reason why a device cannot run a file, or can run only part of it.

    Attributes:
      op_index: index of the operation in its subgraph; None if the finding concerns the whole file.
      op: name of the operation.
      tensor: name of the tensor at fault.
      block: part of this project's architecture that the operation comes from; None if unknown.
      reason: what is wrong, and what is allowed.
    """

    op_index: int | None
    op: str | None
    tensor: str | None
    block: str | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict for a report."""
        return dataclasses.asdict(self)


def merged(checked: list["Finding"], compilation: "Compilation") -> list["Finding"]:
    """Appends the compiler's findings about other operations to those of the static check."""
    known = {finding.op_index for finding in checked}
    return checked + [finding for finding in compilation.findings if finding.op_index not in known]


def judged(checked: list["Finding"], compilation: "Compilation") -> tuple[bool, list["Finding"]]:
    """Returns whether a file is ready for a device, and the findings that prevent it.

    If the vendor's compiler counted the operations (`result["ready"]`), its count decides; otherwise the
    static check does.
    """
    if compilation.status == "compiled" and (ready := compilation.result.get("ready")) is not None:
        return ready, [] if ready else compilation.findings or checked
    findings = merged(checked, compilation)
    return not findings and compilation.status != "failed", findings


@dataclasses.dataclass(frozen=True)
class Compilation:
    """Result of a vendor's compiler.

    Attributes:
      status: `compiled`, `failed` or `not compiled` (the compiler is not installed).
      command: the command that was run, or that the user can run.
      reason: why there is no compiled file, or ''.
      output: path of the compiled file, or None.
      log: output of the compiler.
      result: figures from the log, by name; empty if nothing was run.
      findings: the operations that the compiler left on the CPU, and why.
    """

    status: str
    command: str
    reason: str = ""
    output: str | None = None
    log: str = ""
    result: dict[str, Any] = dataclasses.field(default_factory=dict)
    findings: list[Finding] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict for a report."""
        return dataclasses.asdict(self)
