"""Latency of each block of an architecture, with each block measured alone on a device."""

import inspect
import os
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from mobiledets_tf.errors import InputError
from tflite_export.graphs.cut import cut
from tflite_export.graphs.read_tflite import read_graph


def measure(
    device: ModuleType,
    path: str | os.PathLike,
    variant: str,
    threads: int = 1,
    runs: int = 50,
    progress: Callable[[Iterable], Iterable] = lambda items: items,
    **settings: Any,
) -> dict[str, float]:
    """Returns milliseconds by block name, in the network's order.

    Each block has its own start-up cost, so the sum exceeds the latency of the whole network.

    Args:
      device: a device module that measures graphs.
      path: an int8 .tflite file of this project.
      variant: the chip.
      threads, runs: settings for a device that runs on this machine.
      progress: wraps the list of blocks.
      settings: further settings of a device.

    Raises:
      InputError: the file is not int8, has an operation that graphs do not support, or contains none of
        this project's blocks.
      RuntimeError: the device rejects a block.
    """
    parts = cut(read_graph(path))
    if not parts:
        raise InputError(f"model {str(path)!r} contains no block of this project's architectures")
    takes = inspect.signature(device.measure_graph).parameters
    given = {k: v for k, v in {"threads": threads, "runs": runs, **settings}.items() if k in takes}
    return {
        name: device.measure_graph(part, variant, **given).median_ms
        for name, part in progress(list(parts.items()))
    }
