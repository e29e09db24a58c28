"""Latency of each block of an architecture, measured alone on a device."""

import inspect
import os
from types import ModuleType

from mobiledets_tf.errors import InputError
from tflite_export.graphs.cut import cut
from tflite_export.graphs.read_tflite import read_graph


def measure(
    device: ModuleType, path: str | os.PathLike, variant: str, threads: int = 1, runs: int = 50,
    progress=lambda items: items, **settings,
) -> dict[str, float]:  # fmt: skip
    """Milliseconds by block name, in the network's order.

    A block alone pays for its own start and end: the sum is above the network's time.

    Args:
      device: a module that measures graphs.
      path: an int8 .tflite file of this project.
      variant: which chip.
      threads, runs: for a device that runs here.
      progress: wraps the list of blocks.
      settings: further ones of a device.

    Raises:
      InputError: not int8, an operation that no graph can hold, or no block of ours in it.
      RuntimeError: the device does not take a block.
    """
    parts = cut(read_graph(path))
    if not parts:
        raise InputError(f"model {str(path)!r} names no block of this project's architectures")
    takes = inspect.signature(device.measure_graph).parameters
    given = {k: v for k, v in {"threads": threads, "runs": runs, **settings}.items() if k in takes}
    return {
        name: device.measure_graph(part, variant, **given).median_ms
        for name, part in progress(list(parts.items()))
    }
