"""Converts pixels to the input of a .tflite file, without TensorFlow."""

import functools

import numpy as np

from mobiledets_tf.data.scaling import to_network_range


def quantize(image: np.ndarray, dtype: np.dtype, scale: float, zero_point: int) -> np.ndarray:
    """Quantises a float input to an integer tensor: rounded half to even and clipped.

    With the scale 2/255 that this project's files use, a uint8 tensor contains the resized pixels
    themselves, to within one level.
    """
    limits = np.iinfo(dtype)
    return np.clip(np.round(image / scale) + zero_point, limits.min, limits.max).astype(dtype)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes to (height, width) on the sampling grid of training; see `data.preprocessing.resize`.

    OpenCV's own resize samples at pixel centres, which lowers AP.

    Args:
      pixels: [height, width, 3] uint8.
      size: (height, width).

    Returns:
      [height, width, 3] uint8, within two levels of the float result.
    """
    import cv2

    if pixels.shape[:2] == tuple(size):
        return pixels
    return cv2.remap(
        pixels, *_grid(pixels.shape[:2], tuple(size)), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


@functools.lru_cache(maxsize=8)
def _grid(source: tuple[int, int], target: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the source position of each target pixel, in the fixed-point form that is fast to read."""
    import cv2

    y, x = (
        np.arange(there, dtype=np.float32) * np.float32(here / there)
        for here, there in zip(source, target, strict=True)
    )
    columns, rows = np.meshgrid(x, y)
    return cv2.convertMaps(columns, rows, cv2.CV_16SC2)


def as_input(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Converts resized pixels [height, width, 3] uint8 to an input [1, height, width, 3].

    A uint8 input contains the pixels as they are, int8 the pixels minus 128, float32 pixels in [-1, 1].
    """
    image = pixels[np.newaxis]
    if dtype == np.uint8:
        return image
    if dtype == np.int8:
        return (image ^ 0x80).view(np.int8)
    return to_network_range(image.astype(np.float32))
