"""Parses what `edgetpu_compiler` prints or writes into its .log file.

The output of versions 2 to 16 differs. Without `-s` the table of operations is only in the log file.
The block about operations on the CPU is missing if all are mapped. One operation has a row for each
status. Version 16 adds lines about its child process, and version 2 has one more line about caching.
Unknown lines are ignored.
"""

import dataclasses
import re
from typing import Any

MAPPED = "Mapped to Edge TPU"
INTERNAL_ERROR = "Internal compiler error"

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = r"([\d.]+)\s*([KMG]iB|B)"
_ROW = re.compile(r"^(\S+)[ \t]{2,}(\d+)[ \t]{2,}(\S.*?)\s*$", re.MULTILINE)
_ERROR = re.compile(
    r"^(?:ERROR: .+|Compilation failed: .+|Model not quantized.*|Model could not be parsed.*|"
    r"Internal compiler error.*|Invalid model: .+)$",
    re.MULTILINE,
)
# These lines say only that compilation failed; another line gives the reason.
_NO_REASON = re.compile(r"Invalid model|ERROR: Registration failed")


@dataclasses.dataclass(frozen=True)
class OperatorRow:
    """One row of the compiler's table: the number of operations of a kind that have a status."""

    op: str
    count: int
    status: str

    @property
    def is_mapped(self) -> bool:
        """Whether the Edge TPU runs the operations."""
        return self.status == MAPPED


@dataclasses.dataclass(frozen=True)
class CompilerLog:
    """A parsed log. A field that the log does not report is None; sizes are in bytes.

    Attributes:
      version: version of the compiler.
      succeeded: whether compilation succeeded; None if the text does not say, as with a .log file alone.
      error: the first line that gives a reason, or None.
      milliseconds: duration of the compilation.
      input_model, output_model: paths as printed.
      input_bytes, output_bytes: sizes of both files.
      cached_bytes: parameters cached on the chip.
      cache_free_bytes: cache space that remains free.
      streamed_bytes: parameters read from the host for every inference.
      subgraphs: number of subgraphs that run on the Edge TPU.
      operations: number of operations of the model.
      on_edgetpu, on_cpu: number of operations on each; counted from the table if not printed.
      operation_log: path of the .log file as printed.
      operators: the table of operations.
    """

    version: str | None = None
    succeeded: bool | None = None
    error: str | None = None
    milliseconds: int | None = None
    input_model: str | None = None
    output_model: str | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    cached_bytes: int | None = None
    cache_free_bytes: int | None = None
    streamed_bytes: int | None = None
    subgraphs: int | None = None
    operations: int | None = None
    on_edgetpu: int | None = None
    on_cpu: int | None = None
    operation_log: str | None = None
    operators: tuple[OperatorRow, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict for a report."""
        return dataclasses.asdict(self)


def parse(text: str) -> CompilerLog:
    """Parses standard output, a .log file, or both concatenated."""
    rows = _rows(text)
    fields: dict[str, Any] = {name: _find(pattern, text) for name, pattern in _TEXTS.items()}
    fields |= {name: _number(pattern, text) for name, pattern in _NUMBERS.items()}
    fields |= {name: _bytes(pattern, text) for name, pattern in _SIZES.items()}
    fields |= _cache_of_version_2(fields, text)
    error = _error(text)
    return CompilerLog(
        **fields | _counts(fields, rows), succeeded=_succeeded(text, error), error=error, operators=rows
    )


_TEXTS = {
    "version": r"^Edge TPU Compiler version (\S+)",
    "input_model": r"^Input(?: model)?: (.+?)\s*$",
    "output_model": r"^Output(?: model)?: (.+?)\s*$",
    "operation_log": r"^Operation log: (.+?)\s*$",
}
_NUMBERS = {
    "milliseconds": r"^Model compiled successfully in (\d+) ms",
    "subgraphs": r"^Number of Edge TPU subgraphs: (\d+)",
    "operations": r"^Total number of operations: (\d+)",
    "on_edgetpu": r"^Number of operations that will run on Edge TPU: (\d+)",
    "on_cpu": r"^Number of operations that will run on CPU: (\d+)",
}
_SIZES = {
    "input_bytes": r"^Input size: ",
    "output_bytes": r"^Output size: ",
    "cached_bytes": r"^On-chip memory used for caching model parameters: ",
    "cache_free_bytes": r"^On-chip memory remaining for caching model parameters: ",
    "streamed_bytes": r"^Off-chip memory used for streaming uncached model parameters: ",
}


def _find(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else None


def _number(pattern: str, text: str) -> int | None:
    found = _find(pattern, text)
    return None if found is None else int(found)


def _bytes(pattern: str, text: str) -> int | None:
    found = re.search(pattern + _SIZE, text, re.MULTILINE)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def _cache_of_version_2(fields: dict[str, Any], text: str) -> dict[str, int]:
    """Derives the free cache: version 2 prints the space available before caching, not what remains."""
    before = _bytes(r"^On-chip memory available for caching model parameters: ", text)
    used = fields["cached_bytes"]
    known = before is not None and used is not None and fields["cache_free_bytes"] is None
    return {"cache_free_bytes": max(0, before - used)} if known else {}


def _rows(text: str) -> tuple[OperatorRow, ...]:
    """Returns the table; a row that appears in both standard output and the log file counts once."""
    found = (OperatorRow(op, int(count), status) for op, count, status in _ROW.findall(text))
    return tuple(dict.fromkeys(found))


def _counts(fields: dict[str, Any], rows: tuple[OperatorRow, ...]) -> dict[str, int]:
    """Returns the counts that the log leaves out but that follow from the rest."""
    total, on_edgetpu, on_cpu = fields["operations"], fields["on_edgetpu"], fields["on_cpu"]
    listed = sum(row.count for row in rows)
    # A truncated table must not be counted.
    if on_edgetpu is None and rows and total in (None, listed):
        mapped = sum(row.count for row in rows if row.is_mapped)
        return {"operations": listed, "on_edgetpu": mapped, "on_cpu": listed - mapped}
    # The block about the CPU is missing if nothing runs there.
    if on_edgetpu is None and on_cpu is None and total is not None and not any(not r.is_mapped for r in rows):
        return {"on_edgetpu": total, "on_cpu": 0}
    return {}


def _error(text: str) -> str | None:
    lines = [" ".join(line.split()) for line in _ERROR.findall(text)]
    reasons = [line for line in lines if not _NO_REASON.match(line)]
    return next(iter(reasons or lines), None)


def _succeeded(text: str, error: str | None) -> bool | None:
    if "Compilation failed" in text or error:
        return False
    return True if "Model compiled successfully" in text else None
