"""Times inferences of a model that is open in LiteRT, on any device."""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mobiledets_tf.errors import InputError
from mobiledets_tf.native_output import held_back
from tflite_export.devices import Latency

WARM_UP_RUNS = 5
# Minimum seconds of warm-up and of timing, each. A few runs are enough to fill caches, but the clock needs
# longer to reach its full speed. Other load on a machine comes in bursts of a few tenths of a second.
SECONDS = 0.3
# Number of consecutive runs that share the same load on the machine. On a shared machine, the median of
# 0.1 s of runs of one network varied by 22 % (95th percentile), whereas the median of the quietest ten runs
# in 0.3 s varied by less than 1 %.
BURST = 10


def measure(
    interpreter: Any,
    device: str,
    path: str | os.PathLike,
    threads: int,
    runs: int,
    seed: int,
    seconds: float,
) -> Latency:
    """Measures one inference, without copying inputs and outputs: the median of the quietest burst of runs.

    Args:
      interpreter: an interpreter with allocated tensors; its inputs are filled with noise.
      device: name of the device it runs on.
      path: path of the model, for messages.
      threads: number of threads of the runtime, for the report.
      runs: minimum number of inferences to time, after a warm-up.
      seed: seed of the noise.
      seconds: minimum duration of the warm-up and of the timing, each.

    Raises:
      InputError: an input is not numeric, or the runtime cannot run the model.
    """
    _fill(interpreter, np.random.default_rng(seed), path)
    # The first inference prints which delegate was created.
    with held_back():
        _invoke(interpreter, path)
    warm_up = len(_times(interpreter.invoke, WARM_UP_RUNS, seconds))
    times = _times(interpreter.invoke, runs, seconds)
    median, burst = quietest(times)
    low, middle, high = np.percentile(times, (10, 50, 90))
    details = {
        "statistic": f"median of the quietest {burst}",
        "threads": threads,
        "runs": len(times),
        "warm_up_runs": warm_up,
        "min_ms": float(times.min()),
        "p10_ms": float(low),
        "p50_ms": float(middle),
        "p90_ms": float(high),
        "max_ms": float(times.max()),
    }
    return Latency(device, "measured", median, float((high - low) / 2 / middle), details)


def quietest(times: np.ndarray) -> tuple[float, int]:
    """Returns the lowest median of all bursts of consecutive runs, and the number of runs in a burst.

    With five or more runs there are at least five bursts. Runs after the last complete burst are
    ignored.
    """
    burst = max(1, min(BURST, len(times) // 5))
    whole = times[: len(times) // burst * burst].reshape(-1, burst)
    return float(np.median(whole, axis=1).min()), burst


def _fill(interpreter: Any, rng: np.random.Generator, path: str | os.PathLike) -> None:
    for detail in interpreter.get_input_details():
        dtype, shape = np.dtype(detail["dtype"]), tuple(detail["shape"])
        if dtype.kind == "f":
            value: np.ndarray = rng.uniform(-1, 1, shape)
        elif dtype.kind in "iu":
            # Values that are an index or a length must stay small to be valid.
            value = rng.integers(0, 128 if dtype.itemsize == 1 else 2, shape)
        elif dtype.kind == "b":
            value = np.zeros(shape)
        else:
            name = detail["name"]
            raise InputError(f"input {name!r} of model {str(path)!r} has type {dtype}; allowed: numbers")
        interpreter.set_tensor(detail["index"], value.astype(dtype))


def _invoke(interpreter: Any, path: str | os.PathLike) -> None:
    try:
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"LiteRT cannot run model {str(path)!r}: {str(error).splitlines()[0]}") from error


def _times(invoke: Callable[[], None], runs: int, seconds: float) -> np.ndarray:
    """Times runs in milliseconds until both the count and the duration are reached."""
    start = time.perf_counter()
    times: list[float] = []
    while len(times) < runs or time.perf_counter() - start < seconds:
        times.append(_timed(invoke))
    return np.array(times)


def _timed(invoke: Callable[[], None]) -> float:
    """Returns the milliseconds that one call takes."""
    start = time.perf_counter_ns()
    invoke()
    return (time.perf_counter_ns() - start) / 1e6
