"""Timing inferences of a model that is open in LiteRT, whatever it runs on."""

import os
import time

import numpy as np

from mobiledets_tf.errors import InputError
from tflite_export.devices import Latency
from tflite_export.native_output import held_back

WARM_UP_RUNS = 5
# A short burst before measuring is enough for caches, not for the clock to reach its speed.
WARM_UP_SECONDS = 0.3


def measure(
    interpreter, device: str, path: str | os.PathLike, threads: int, runs: int, seed: int,
    warm_up_seconds: float,
) -> Latency:  # fmt: skip
    """Measures one inference, inputs and outputs in place.

    Args:
      interpreter: with its tensors allocated; any inputs, they are filled with noise.
      device: what it runs on.
      path: of the model, for messages.
      threads: of the runtime, for the report.
      runs: how many inferences to time, after a warm-up.
      seed: of the noise.
      warm_up_seconds: how long to run before timing, at least.

    Raises:
      InputError: an input is no number, or the runtime does not run the model.
    """
    _fill(interpreter, np.random.default_rng(seed), path)
    # The first inference prints which delegate was made.
    with held_back():
        _invoke(interpreter, path)
    warm_up = _warm_up(interpreter.invoke, warm_up_seconds)
    times = np.array([_timed(interpreter.invoke) for _ in range(runs)])
    low, median, high = np.percentile(times, (10, 50, 90))
    details = {
        "threads": threads, "runs": runs, "warm_up_runs": warm_up, "min_ms": float(times.min()),
        "p10_ms": float(low), "p90_ms": float(high), "max_ms": float(times.max()),
    }  # fmt: skip
    return Latency(device, "measured", float(median), float((high - low) / 2 / median), details)


def _fill(interpreter, rng: np.random.Generator, path) -> None:
    for detail in interpreter.get_input_details():
        dtype, shape = np.dtype(detail["dtype"]), tuple(detail["shape"])
        if dtype.kind == "f":
            value = rng.uniform(-1, 1, shape)
        elif dtype.kind in "iu":
            # The values of an index or a length must stay small to be valid.
            value = rng.integers(0, 128 if dtype.itemsize == 1 else 2, shape)
        elif dtype.kind == "b":
            value = np.zeros(shape)
        else:
            name = detail["name"]
            raise InputError(f"input {name!r} of model {str(path)!r} is of type {dtype}; allowed: numbers")
        interpreter.set_tensor(detail["index"], value.astype(dtype))


def _invoke(interpreter, path) -> None:
    try:
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"LiteRT cannot run model {str(path)!r}: {str(error).splitlines()[0]}") from error


def _warm_up(invoke, seconds: float) -> int:
    """Runs until both the count and the time are reached; returns the count."""
    start, count = time.perf_counter(), 0
    while count < WARM_UP_RUNS or time.perf_counter() - start < seconds:
        invoke()
        count += 1
    return count


def _timed(invoke) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter_ns()
    invoke()
    return (time.perf_counter_ns() - start) / 1e6
