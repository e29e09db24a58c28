"""Means with 95 % intervals by Student's t."""

import math
import statistics
from collections.abc import Sequence
from typing import Any


def mean(values: Sequence[float]) -> dict[str, Any] | None:
    """Returns the mean of independent values with its interval.

    Returns:
      `mean`, `interval` ([low, high]; None for a single value), `n` and the `values`; None if there are none.
    """
    if not values:
        return None
    found, interval = statistics.mean(values), None
    if len(values) > 1:
        # Imported here because it takes a second, which --help should not.
        from scipy import stats

        error = statistics.stdev(values) / math.sqrt(len(values))
        half = float(stats.t.ppf(0.975, len(values) - 1)) * error
        interval = [found - half, found + half]
    return {"mean": found, "interval": interval, "n": len(values), "values": list(values)}
