"""What `benchmark_model` prints, on a phone or anywhere else, in its three generations.

TensorFlow 1.13 gives the mean in microseconds as "no stats: 2500.0"; later versions print
"Inference (avg): 2500.0", also in microseconds; LiteRT's `benchmark_litert_model` writes the unit,
"Inference (avg): 2.50 ms (400 runs)", and a line for each other figure.
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
# Milliseconds; without a unit it is microseconds.
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_MEMORY = re.compile(r"footprint.*\(MB\): .*overall=([0-9.]+)")


@dataclasses.dataclass(frozen=True)
class Timing:
    """Timed runs of one model.

    Attributes:
      ms: the median, in milliseconds; of older versions, which print none, the mean.
      statistic: `median` or `mean`.
      mean_ms: the mean.
      runs: how many.
      figures: `min`, `max`, `std` and percentiles, where they are printed, in milliseconds.
      init_ms: time to load the model, or None.
      memory_mb: memory, or None.
    """

    ms: float
    statistic: str
    mean_ms: float
    runs: int
    figures: dict[str, float]
    init_ms: float | None
    memory_mb: float | None


def parse(printed: str) -> Timing | None:
    """Reads it; None where the tool printed no timing, as it does when it fails or is stopped.

    The last `count=` line is that of the timed runs.
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
