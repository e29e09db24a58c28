"""What can be said of a network on a device: measured, simulated, estimated, checked, compiled.

Each device is a module of this package and answers what it can. One that gives times has
  KIND, VARIANTS, DEFAULT_VARIANT     what its times are; which chips it stands for
  measure(path, threads, runs, variant) -> Latency     of a .tflite file
  measure_graph(graph, variant) -> Latency             of a graph of `tflite_export.graphs`
  versions(variant) -> dict                            of all that its figures depend on
One that compiles has `check(model) -> list[Finding]`, COMPILE_VARIANTS and
`compile_model(path, output_dir, variant) -> Compilation`. To add a device, write the module and name
it below.
"""

import dataclasses
import importlib
from types import ModuleType
from typing import Any

from mobiledets_tf.errors import InputError

# Devices by what they answer; the modules are imported when asked for.
MEASURING = ("host_cpu", "coral", "hexagon", "ethos_u", "adb")
COMPILING = ("edgetpu", "hexagon", "ethos_u")
# Those that give a time for a network, whatever its kind: what `mobiledets-latency` offers.
TIMING = ("host_cpu", "coral", "hexagon", "ethos_u", "edgetpu")
# Of these, the ones that run the network: they take `threads` and `runs`.
RUNNING = ("host_cpu", "coral")


def load(name: str) -> ModuleType:
    """The module of a device named above."""
    return importlib.import_module(f"{__name__}.{name}")


def missing_extra(extra: str, package: str) -> InputError:
    """The error for an optional dependency, with the command that installs it."""
    return InputError(f"{package} is not installed; run: pip install 'mobiledets-tf[{extra}]'")


@dataclasses.dataclass(frozen=True)
class Latency:
    """Time of one inference.

    Attributes:
      device: what it ran on.
      kind: one of `mobiledets_tf.latency.kinds.KINDS`.
      median_ms: of the runs (of which, `details["statistic"]` says); the figure itself where it is
        not measured.
      spread: half the distance between the 10th and 90th percentile, over the median, of all runs.
      details: settings and further figures, by name.
    """

    device: str
    kind: str
    median_ms: float
    spread: float
    details: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
        fields = {name: getattr(self, name) for name in ("device", "kind", "median_ms", "spread")}
        return fields | self.details


@dataclasses.dataclass(frozen=True)
class Finding:
    """One reason why a device would not run a file, or not wholly.

    Attributes:
      op_index: of the operation in its subgraph; None when it concerns the whole file.
      op: its name.
      tensor: the tensor at fault, by name.
      block: the part of our architecture it comes from, or None for files of others.
      reason: what is wrong, what is allowed.
    """

    op_index: int | None
    op: str | None
    tensor: str | None
    block: str | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
        return dataclasses.asdict(self)


def merged(checked: list["Finding"], compilation: "Compilation") -> list["Finding"]:
    """Findings of the static check, then those of the compiler about other operations."""
    known = {finding.op_index for finding in checked}
    return checked + [finding for finding in compilation.findings if finding.op_index not in known]


def judged(checked: list["Finding"], compilation: "Compilation") -> tuple[bool, list["Finding"]]:
    """Whether a file is ready, and what keeps it from being so.

    Where the vendor's compiler counted (`result["ready"]`), its count decides; else the static check does.
    """
    if compilation.status == "compiled" and (ready := compilation.result.get("ready")) is not None:
        return ready, [] if ready else compilation.findings or checked
    findings = merged(checked, compilation)
    return not findings and compilation.status != "failed", findings


@dataclasses.dataclass(frozen=True)
class Compilation:
    """The vendor compiler's answer.

    Attributes:
      status: `compiled`, `failed` or `not compiled` (the compiler is not installed).
      command: what was run, or what to run.
      reason: why there is no compiled file, or ''.
      output: the compiled file, or None.
      log: what the compiler printed.
      result: what the log says, by name; empty where nothing was run.
      findings: what the compiler left on the CPU, and why.
    """

    status: str
    command: str
    reason: str = ""
    output: str | None = None
    log: str = ""
    result: dict[str, Any] = dataclasses.field(default_factory=dict)
    findings: list[Finding] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
        return dataclasses.asdict(self)
