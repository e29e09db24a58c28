"""Pixels as a .tflite file takes them, without TensorFlow."""

import functools

import numpy as np


def quantize(image: np.ndarray, dtype: np.dtype, scale: float, zero_point: int) -> np.ndarray:
    """A float input as an integer tensor holds it: rounded half to even and clipped.

    With the scale 2/255 of our files a uint8 tensor then holds the resized pixel itself, to
    within one level.
    """
    limits = np.iinfo(dtype)
    return np.clip(np.round(image / scale) + zero_point, limits.min, limits.max).astype(dtype)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes to (height, width) on the sampling grid of training, see `images.resize`.

    OpenCV's own resize takes the centres of pixels; on that grid AP is lower.

    Args:
      pixels: [height, width, 3] uint8.
      size: (height, width).

    Returns:
      [height, width, 3] uint8, within two levels of the float result.
    """
    import cv2

    if pixels.shape[:2] == tuple(size):
        return pixels
    return cv2.remap(pixels, *_grid(pixels.shape[:2], tuple(size)), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


@functools.lru_cache(maxsize=8)
def _grid(source: tuple[int, int], target: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the result lies in the source, in the fixed-point form that is fast to read."""
    import cv2

    y, x = (np.arange(there, dtype=np.float32) * np.float32(here / there)
            for here, there in zip(source, target, strict=True))  # fmt: skip
    columns, rows = np.meshgrid(x, y)
    return cv2.convertMaps(columns, rows, cv2.CV_16SC2)


def as_input(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Resized pixels [height, width, 3] uint8 as an input [1, height, width, 3].

    uint8 takes pixels as they are, int8 pixels less 128, float32 pixels in [-1, 1].
    """
    image = pixels[np.newaxis]
    if dtype == np.uint8:
        return image
    if dtype == np.int8:
        return (image ^ 0x80).view(np.int8)
    return image.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
