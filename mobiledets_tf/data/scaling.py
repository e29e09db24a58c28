"""The range of pixels that every network of this project reads."""

from typing import Any


def to_network_range(pixels: Any) -> Any:
    """Maps pixels from [0, 255] to [-1, 1], as the Object Detection API's MobileDet extractors do.

    Args:
      pixels: a float32 array or tensor of any shape.

    Returns:
      The same kind of array or tensor, float32.
    """
    return (2.0 / 255.0) * pixels - 1.0
