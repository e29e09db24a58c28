"""What TensorFlow's `benchmark_model` prints, on a phone or anywhere else."""

import dataclasses
import re

_COUNTS = re.compile(r"^(?:INFO: )?count=(\d+) (.*)$", re.MULTILINE)
_PAIR = re.compile(r"(\w+)=([0-9.eE+-]+)")
_AVERAGE = re.compile(r"Inference \(avg\): ([0-9.eE+]+)")
_INIT = re.compile(r"Init: ([0-9.eE+]+)")
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
    mean, lines = float(averages[-1]) / 1e3, _COUNTS.findall(printed)
    count, rest = lines[-1] if lines else (0, "")
    figures = {name: float(value) / 1e3 for name, value in _PAIR.findall(rest)}
    statistic = "median" if "median" in figures else "mean"
    init, memory = _INIT.search(printed), _MEMORY.search(printed)
    return Timing(
        figures.get("median", mean),
        statistic,
        mean,
        int(count),
        figures,
        float(init[1]) / 1e3 if init else None,
        float(memory[1]) if memory else None,
    )
