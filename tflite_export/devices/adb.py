"""An Android phone over adb, measured with TensorFlow's own `benchmark_model`.

The tool must already be on the phone; https://ai.google.dev/edge/litert/models/measurement offers
ready-made binaries. The model is pushed to the same folder and removed afterwards.
"""

import os
import re
import shutil
from pathlib import Path

from mobiledets_tf.errors import CheckFailed, InputError
from tflite_export.devices import Latency, benchmark_log, process
from tflite_export.tflite import model_file

KIND = "measured"
VARIANTS = {"cpu": "", "gpu": "--use_gpu=true", "nnapi": "--use_nnapi=true", "hexagon": "--use_hexagon=true"}
DEFAULT_VARIANT = "cpu"
FOLDER = "/data/local/tmp"
TOOL = f"{FOLDER}/benchmark_model"
TIMEOUT_S = 300


def measure(
    path: str | os.PathLike, threads: int = 1, runs: int = 50, variant: str = DEFAULT_VARIANT
) -> Latency:
    """Measures a file on the connected phone; with several phones, $ANDROID_SERIAL selects one.

    Args:
      path: the .tflite file.
      threads: number of threads of the CPU runtime.
      runs: number of timed inferences.
      variant: the delegate, one of `VARIANTS`.

    Raises:
      InputError: adb, the phone or the tool is missing.
      CheckFailed: the tool failed on the phone.
    """
    model_file.read(path)
    if not shutil.which("adb"):
        raise InputError("adb is not installed; it is part of Android's platform tools")
    state = _adb(["get-state"], "adb finds no phone, or several (then set ANDROID_SERIAL)")
    if state.strip() != "device":
        raise InputError(f"the phone is in adb state {state.strip()!r}; allowed: device")
    _adb(
        ["shell", "test", "-x", TOOL],
        f"the phone has no executable {TOOL}; push TensorFlow's benchmark_model there",
    )
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(path).name)
    target = f"{FOLDER}/mobiledets_{os.getpid()}_{name}"
    _adb(["push", str(Path(path).resolve()), target], "the model cannot be copied to the phone")
    command = ["shell", TOOL, f"--graph={target}", f"--num_threads={threads}", f"--num_runs={runs}"]
    try:
        code, printed = process.run("adb", ["adb", *command, *filter(None, [VARIANTS[variant]])], TIMEOUT_S)
    finally:
        process.run("adb", ["adb", "shell", "rm", "-f", target], TIMEOUT_S)
    if reason := process.fault("benchmark_model", code):
        raise CheckFailed(f"{reason}: {_last_line(printed)}")
    return parse(printed, threads, variant)


def _adb(arguments: list[str], problem: str) -> str:
    code, printed = process.run("adb", ["adb", *arguments], TIMEOUT_S)
    if reason := process.fault("adb", code):
        raise InputError(f"{problem}: {_last_line(printed) or reason}")
    return printed


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:300]


def parse(printed: str, threads: int, variant: str = DEFAULT_VARIANT) -> Latency:
    """Parses the output of `benchmark_model`; `statistic` says whether the figure is the median or the mean.

    Raises:
      CheckFailed: the tool printed no timing.
    """
    timing = benchmark_log.parse(printed)
    if timing is None or not timing.runs:
        raise CheckFailed(f"benchmark_model printed no timing: {_last_line(printed)}")
    figures = timing.figures
    details = {
        "variant": variant,
        "threads": threads,
        "runs": timing.runs,
        "statistic": timing.statistic,
        "mean_ms": timing.mean_ms,
        "min_ms": figures.get("min"),
        "max_ms": figures.get("max"),
        "std_ms": figures.get("std"),
    }
    for name in ("init_ms", "memory_mb"):
        if (value := getattr(timing, name)) is not None:
            details[name] = value
    # For a normal distribution, half the distance between these percentiles is 1.28 standard deviations.
    spread = 1.28 * figures.get("std", 0.0) / timing.mean_ms if timing.mean_ms else 0.0
    return Latency("adb", KIND, timing.ms, spread, details)
