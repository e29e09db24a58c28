"""Generates the built-in sample set: scanned handwritten digits on photos, all shipped with scikit-learn.

The set consists of real pixels without a download: `load_digits` (1,797 scans of 8x8 pixels, ten
classes; UCI Optical Recognition of Handwritten Digits) and `load_sample_images` (two photos). Each
scan is used as the opacity of one colour that is drawn over a crop of a photo. Scale, position,
contrast and overlap vary; some images are empty. No scan is used in both train and val.
"""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mobiledets_tf import files
from mobiledets_tf.data import folders, image_files

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_JPEG_QUALITY = 90
_EMPTY_IMAGES = 0.06
_MAX_DIGITS = 5
# Sides of digits as fractions of the image side: 32 to 72 pixels in an image of 160 pixels.
_MIN_DIGIT, _MAX_DIGIT = 0.2, 0.45
_MIN_CONTRAST = 70  # grey levels between the ink and most of the photo beneath it
# Ink is nearly black or nearly white. If any grey level that stands out is allowed, a small network
# memorises the photos before it learns the shapes: training at depth multiplier 0.35 for 1,200 steps
# reached AP50 0.12 on val (0.89 on train), compared with 0.19 on val with this ink.
_DARK_INK, _LIGHT_INK = (0.0, 40.0), (215.0, 255.0)
_TINT = 15.0
_MAX_OVERLAP = 0.12  # as a fraction of the smaller box
_PLACING_TRIALS = 30
_INK = 0.3  # opacity above which a pixel belongs to the box
_SCANS_PER_VAL_SCAN = 5


@dataclass(frozen=True)
class _Digit:
    """A drawn digit: class index and box (left, top, right, bottom) in pixels."""

    label: int
    box: tuple[int, int, int, int]


def write_sample(
    output_dir: str | os.PathLike,
    num_train: int = 1000,
    num_val: int = 200,
    image_size: int = 160,
    seed: int = 0,
) -> None:
    """Writes a data folder with the splits `train` and `val`, completely or not at all.

    The same arguments produce the same files; image n does not depend on the number of images.

    Args:
      output_dir: folder to write; must be missing or empty.
      num_train, num_val: number of images in each split.
      image_size: side of the square images, in pixels.
      seed: seed for the choice of scans, crops, positions and colours.

    Raises:
      InputError: the folder exists and is not empty.
    """
    with folders.new_folder(output_dir) as folder:
        first_id = 1
        for stream, (split, count) in enumerate((("train", num_train), ("val", num_val))):
            images = folder / split
            images.mkdir()
            with tqdm(range(count), desc=f"sample {split}", unit="image", leave=False) as numbers:
                drawn = [
                    _write_image(images / _file_name(number), split, image_size, (seed, stream, number))
                    for number in numbers
                ]
            files.write_json(folder / f"instances_{split}.json", _instances(drawn, image_size, first_id))
            first_id += count


def _file_name(number: int) -> str:
    return f"{number:06d}.jpg"


def _write_image(path: Path, split: str, size: int, seed: tuple[int, ...]) -> list[_Digit]:
    random = np.random.default_rng(seed)
    canvas = _background(random, size)
    digits = _draw_digits(random, canvas, split)
    image = Image.fromarray(canvas.round().astype(np.uint8))
    path.write_bytes(image_files.encode(image, _JPEG_QUALITY))
    return digits


def _instances(drawn: list[list[_Digit]], size: int, first_id: int) -> dict[str, Any]:
    """Returns the COCO dictionary of one split; image ids are unique across both splits."""
    boxes = [(first_id + number, digit) for number, digits in enumerate(drawn) for digit in digits]
    return {
        "info": {"description": "Handwritten digits on photos, made from data sets of scikit-learn"},
        "images": [
            {"id": first_id + number, "file_name": _file_name(number), "width": size, "height": size}
            for number in range(len(drawn))
        ],
        "annotations": [
            _annotation(index, image_id, digit) for index, (image_id, digit) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": index, "name": name} for index, name in enumerate(CLASS_NAMES, start=1)],
    }


def _annotation(index: int, image_id: int, digit: _Digit) -> dict[str, Any]:
    left, top, right, bottom = digit.box
    width, height = right - left, bottom - top
    return {
        "id": index,
        "image_id": image_id,
        "category_id": digit.label + 1,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


@functools.lru_cache(maxsize=1)
def _photos() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(photo) for photo in load_sample_images().images]


@functools.lru_cache(maxsize=2)
def _scans(split: str) -> list[np.ndarray]:
    """Returns for each class the scans of a split, float32 [N, 8, 8] in [0, 1]; every fifth goes to val."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    scans = (digits.images / 16.0).astype(np.float32)
    wanted = np.arange(len(scans)) % _SCANS_PER_VAL_SCAN == 0
    wanted = wanted if split == "val" else ~wanted
    return [scans[wanted & (digits.target == label)] for label in range(len(CLASS_NAMES))]


def _background(random: np.random.Generator, size: int) -> np.ndarray:
    """Returns a random crop of a photo, resized, with random mirroring, contrast and brightness.

    The result is float32 [size, size, 3] in [0, 255].
    """
    photos = _photos()
    photo = photos[random.integers(len(photos))]
    side = int(random.integers(120, min(photo.size) + 1))
    left, top = (int(random.integers(0, extent - side + 1)) for extent in photo.size)
    crop = photo.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    pixels = np.asarray(crop, np.float32)
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    contrast, brightness = random.uniform(0.6, 1.0), random.uniform(-25, 25)
    return np.clip((pixels - 128) * contrast + 128 + brightness, 0, 255)


def _draw_digits(random: np.random.Generator, canvas: np.ndarray, split: str) -> list[_Digit]:
    """Draws up to five digits on the canvas in place, and returns those drawn."""
    wanted = 0 if random.random() < _EMPTY_IMAGES else int(random.integers(1, _MAX_DIGITS + 1))
    digits: list[_Digit] = []
    for _ in range(wanted):
        label = int(random.integers(len(CLASS_NAMES)))
        scans = _scans(split)[label]
        opacity = _opacity(random, scans[random.integers(len(scans))], canvas.shape[0])
        for left, top in _places(random, canvas.shape[0], opacity.shape):
            box = (left, top, left + opacity.shape[1], top + opacity.shape[0])
            if all(_overlap(box, other.box) <= _MAX_OVERLAP for other in digits):
                _blend(random, canvas[top : box[3], left : box[2]], opacity)
                digits.append(_Digit(label, box))
                break
    return digits


def _opacity(random: np.random.Generator, scan: np.ndarray, size: int) -> np.ndarray:
    """Enlarges a scan smoothly and crops it to its ink; returns float32 [height, width] in [0, 1]."""
    side = size * random.uniform(_MIN_DIGIT, _MAX_DIGIT)
    stretch = random.uniform(0.85, 1.15)
    # The ink of a scan fills its height and about three quarters of its width.
    shape = (max(8, round(side * stretch)), max(8, round(side)))
    enlarged = np.asarray(Image.fromarray(scan).resize(shape, Image.Resampling.BICUBIC))
    sharpened = np.clip((enlarged - 0.15) / 0.5, 0, 1)
    rows, columns = (np.flatnonzero((sharpened > _INK).any(axis=axis)) for axis in (1, 0))
    return sharpened[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _places(random: np.random.Generator, size: int, shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yields random corners (left, top) to try, for boxes that lie completely inside the image."""
    for _ in range(_PLACING_TRIALS):
        yield int(random.integers(0, size - shape[1] + 1)), int(random.integers(0, size - shape[0] + 1))


def _overlap(box: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Returns the shared area of two boxes, divided by the area of the smaller box."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    areas = ((each[2] - each[0]) * (each[3] - each[1]) for each in (box, other))
    return max(width, 0) * max(height, 0) / min(areas)


def _blend(random: np.random.Generator, patch: np.ndarray, opacity: np.ndarray) -> None:
    """Draws ink over a patch of the canvas, lighter or darker than the pixels beneath."""
    low, high = _ink_range(random, patch.mean(axis=-1)[opacity > _INK])
    colour = np.clip(random.uniform(low, high) + random.uniform(-_TINT, _TINT, size=3), 0, 255)
    alpha = (opacity * random.uniform(0.9, 1.0))[..., np.newaxis]
    patch[:] = patch * (1 - alpha) + colour * alpha


def _ink_range(random: np.random.Generator, below: np.ndarray) -> tuple[float, float]:
    """Returns a range of grey levels darker or lighter than the pixels below, at random if both exist."""
    dark, light = np.percentile(below, (15, 85))
    ranges = [
        (_DARK_INK[0], min(_DARK_INK[1], dark - _MIN_CONTRAST)),
        (max(_LIGHT_INK[0], light + _MIN_CONTRAST), _LIGHT_INK[1]),
    ]
    possible = [(low, high) for low, high in ranges if low <= high]
    # On a patch with both dark and light pixels, use the extreme that is farther from the patch's mean.
    extreme = 0.0 if below.mean() > 127.5 else 255.0
    return possible[random.integers(len(possible))] if possible else (extreme, extreme)
