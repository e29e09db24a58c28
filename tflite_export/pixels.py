"""Pixels as a .tflite file takes them, without TensorFlow."""

import numpy as np


def quantize(image: np.ndarray, dtype: np.dtype, scale: float, zero_point: int) -> np.ndarray:
    """A float input as an integer tensor holds it: rounded half to even and clipped.

    With the scale 2/255 of our files a uint8 tensor then holds the resized pixel itself, to
    within one level.
    """
    limits = np.iinfo(dtype)
    return np.clip(np.round(image / scale) + zero_point, limits.min, limits.max).astype(dtype)
