"""What can be said of a .tflite file on a device: measured, checked, compiled.

Each device is a module of this package and answers what it can: one that measures has
`measure(path, threads, runs) -> Latency`; one that checks has `check(model) -> list[Finding]`
and `compile_model(path, output_dir) -> Compilation`. To add a device, write the module and
name it below.
"""

import dataclasses
import importlib
from types import ModuleType
from typing import Any

# Devices by what they answer; the modules are imported when asked for.
MEASURING = ("host_cpu",)
COMPILING = ("edgetpu",)


def load(name: str) -> ModuleType:
    """The module of a device in `MEASURING` or `COMPILING`."""
    return importlib.import_module(f"{__name__}.{name}")


@dataclasses.dataclass(frozen=True)
class Latency:
    """Time of one inference.

    Attributes:
      device: what it ran on.
      kind: `measured`, `simulated` or `modelled`.
      median_ms: of all runs.
      spread: half the distance between the 10th and 90th percentile, over the median.
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
    """

    status: str
    command: str
    reason: str = ""
    output: str | None = None
    log: str = ""
    result: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
        return dataclasses.asdict(self)
