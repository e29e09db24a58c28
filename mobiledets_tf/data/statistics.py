"""Data set statistics: class balance, box sizes at the input size, and classes that are hard to learn."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mobiledets_tf.data.coco import Dataset

# Stride of the finest feature map in input pixels, below which the side of a box counts as small.
SMALL_SIDE = 16
_WARN_SHARE = 0.05
_FEW_BOXES = 20
_PERCENTILES = (5, 50, 95)


@dataclass(frozen=True)
class Statistics:
    """Statistics of one split; crowd boxes are not counted.

    Attributes:
      input_size: side of the detector's input, in pixels.
      boxes: number of boxes by class name.
      images: number of images with a box of the class, by class name.
      small: number of boxes with a side (root of the area) below `SMALL_SIDE` input pixels, by class
        name.
      sides: 5th, 50th and 95th percentile of the sides of all boxes; empty if there are none.
    """

    input_size: int
    boxes: dict[str, int]
    images: dict[str, int]
    small: dict[str, int]
    sides: tuple[float, ...]

    def lines(self) -> list[str]:
        """Formats a table of the classes, followed by a line about box sizes."""
        total = sum(self.boxes.values())
        width = max(map(len, (*self.boxes, "class")))
        lines = [f"  {'class':<{width}}  boxes  share  images  below {SMALL_SIDE} px"]
        for name, count in sorted(self.boxes.items(), key=lambda item: -item[1]):
            share = count / total if total else 0.0
            images, small = self.images[name], self.small[name]
            lines.append(f"  {name:<{width}}  {count:>5}  {share:>5.1%}  {images:>6}  {small:>11}")
        if self.sides:
            low, middle, high = self.sides
            lines.append(
                f"  box side at {self.input_size}x{self.input_size}: median {middle:.0f} px, "
                f"90 % are from {low:.0f} to {high:.0f} px"
            )
        return lines

    def warnings(self) -> list[str]:
        """Returns warnings about small boxes and classes with few boxes, one line each."""
        total, small = sum(self.boxes.values()), sum(self.small.values())
        found = []
        if total and small / total > _WARN_SHARE:
            found.append(
                f"{small} of {total} boxes ({small / total:.0%}) are smaller than {SMALL_SIDE} px at input "
                f"size {self.input_size}; use a larger --image_size or crops of the images"
            )
        for name, count in self.boxes.items():
            if count < _FEW_BOXES:
                found.append(f"class {name!r} has few boxes: {count}")
        return found


def measure(dataset: Dataset, input_size: int) -> Statistics:
    """Computes statistics of the valid entries of an annotation file.

    Args:
      dataset: the data of one split.
      input_size: side of the detector's square input, in pixels.
    """
    sizes = {image.id: image.width * image.height for image in dataset.images}
    names = {category.id: category.name for category in dataset.categories}
    boxes: Counter[str] = Counter()
    small: Counter[str] = Counter()
    images, sides = set(), []
    for box in dataset.annotations:
        if box.is_crowd:
            continue
        name = names[box.category_id]
        # The image is stretched to a square, which preserves areas as fractions of the image.
        side = input_size * (box.bbox[2] * box.bbox[3] / sizes[box.image_id]) ** 0.5
        boxes[name] += 1
        small[name] += side < SMALL_SIDE
        images.add((name, box.image_id))
        sides.append(side)
    of_class = Counter(name for name, _ in images)
    in_boxes, in_images, in_small = (
        {name: counts[name] for name in names.values()} for counts in (boxes, of_class, small)
    )
    return Statistics(
        input_size,
        in_boxes,
        in_images,
        in_small,
        tuple(float(value) for value in np.percentile(sides, _PERCENTILES)) if sides else (),
    )
