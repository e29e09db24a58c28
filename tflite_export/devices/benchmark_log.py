"""Parses the output of the three generations of `benchmark_model`, on a phone or elsewhere.

TensorFlow 1.13 prints the mean in microseconds as "no stats: 2500.0". Later versions print
"Inference (avg): 2500.0", also in microseconds. LiteRT's `benchmark_litert_model` prints the unit,
"Inference (avg): 2.50 ms (400 runs)", and a separate line for each other figure.
"""

import dataclasses
import re

_COUNTS = re.compile(r"^(?:INFO: )?count=(\d+) (.*)$", re.MULTILINE)
_PAIR = re.compile(r"(\w+)=([0-9.eE+-]+)")
_NUMBER = r"([0-9.]+(?:[eE][+-]?[0-9]+)?)"
_AVERAGE = re.compile(rf"(?:Inference \(avg\)|\bno stats):\s*{_NUMBER}(?:[ \t]*(us|ms|s)\b)?")
_FIGURE = re.compile(rf"Inference \((min|max|std|median|p\d+)\):\s*{_NUMBER}(?:[ \t]*(us|ms|s)\b)?")
_RUNS = re.compile(r"\((\d+) runs\)|Running benchmark for (\d+) iterations")
_INIT = re.compile(rf"\bInit(?:ialization)?(?: \(avg\))?:\s*{_NUMBER}(?:[ \t]*(us|ms|s)\b)?")
# Factors to milliseconds; a figure without a unit is in microseconds.
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_MEMORY = re.compile(r"footprint.*\(MB\): .*overall=([0-9.]+)")


@dataclasses.dataclass(frozen=True)
class Timing:
    """Timing of one model.

    Attributes:
      ms: the median in milliseconds, or the mean for older versions, which print no median.
      statistic: `median` or `mean`.
      mean_ms: the mean.
      runs: number of timed runs.
      figures: `min`, `max`, `std` and percentiles in milliseconds, as far as they are printed.
      init_ms: time to load the model, or None.
      memory_mb: memory use, or None.
    """

    ms: float
    statistic: str
    mean_ms: float
    runs: int
    figures: dict[str, float]
    init_ms: float | None
    memory_mb: float | None


def parse(printed: str) -> Timing | None:
    """Parses the output; returns None if it has no timing because the tool failed or was stopped.

    The last `count=` line describes the timed runs.
    """
    averages = _AVERAGE.findall(printed)
    if not averages:
        return None
    number, unit = averages[-1]
    unit = unit or "us"
    mean, lines = float(number) * _UNITS[unit], _COUNTS.findall(printed)
    count, rest = lines[-1] if lines else (_runs(printed), "")
    figures = {name: float(value) / 1e3 for name, value in _PAIR.findall(rest)}
    figures |= {name: float(value) * _UNITS[its or unit] for name, value, its in _FIGURE.findall(printed)}
    statistic = "median" if "median" in figures else "mean"
    init, memory = _INIT.search(printed), _MEMORY.search(printed)
    return Timing(
        figures.get("median", mean),
        statistic,
        mean,
        int(count),
        figures,
        float(init[1]) * _UNITS[init[2] or "us"] if init else None,
        float(memory[1]) if memory else None,
    )


def _runs(printed: str) -> int:
    found = _RUNS.findall(printed)
    return int(found[-1][0] or found[-1][1]) if found else 0
