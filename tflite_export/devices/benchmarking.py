"""Measures the latency of a .tflite file on a device."""

from collections.abc import Callable, Iterable
from typing import Any

from mobiledets_tf.errors import CheckFailed, InputError, unknown_name
from tflite_export import devices
from tflite_export.devices import block_times
from tflite_export.devices.options import BenchmarkOptions
from tflite_export.tflite import model_file


def run(
    options: BenchmarkOptions, progress: Callable[[Iterable], Iterable] = lambda items: items
) -> dict[str, Any]:
    """Measures, simulates or estimates the latency of one inference, as the device allows.

    Args:
      options: the file and the device.
      progress: wraps the blocks that are timed, for a progress bar.

    Returns:
      `model`, `device`, `kind` (one of `latency.KINDS`), `median_ms`, `spread` and the
      device's further figures; with `blocks`, `blocks_ms`, the time of each block alone by name.

    Raises:
      InputError: the file cannot be read, or the device or variant is not available or does not fit it.
      CheckFailed: the device cannot run the file.
    """
    model = model_file.read(options.model)
    if options.device != "coral":
        model_file.refuse_compiled(
            model,
            options.model,
            "only --device=coral measures a file compiled for the Edge TPU; for other devices give the file "
            "that it was compiled from",
        )
    device = devices.load(options.device)
    variant = options.variant or device.DEFAULT_VARIANT
    if variant not in device.VARIANTS:
        raise unknown_name(f"variant of {options.device}", variant, filter(None, device.VARIANTS))
    if options.blocks and options.device == "adb":
        raise InputError("--blocks with --device=adb; allowed devices: host_cpu, coral, hexagon, ethos_u")
    try:
        latency = device.measure(options.model, options.threads, options.runs, variant)
        result = {"model": options.model} | latency.to_dict()
        if options.blocks:
            result["blocks_ms"] = block_times.measure(
                device, options.model, variant, options.threads, options.runs, progress
            )
    except RuntimeError as error:
        raise CheckFailed(str(error)) from error
    return result
