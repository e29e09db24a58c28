"""Boxes that are read without an error and are likely to mean something else."""

from mobiledets_tf.data.coco import Annotation, Dataset, Fault

# From this share of the boxes on it is the unit of the file, not a slip in some of them.
_SHARE = 0.5
_AREA_TOLERANCE = 0.01
# In an image of fewer pixels a box inside the first one may be meant.
_LEAST_SIDE = 8


def is_in_first_pixel(box: Annotation) -> bool:
    """Whether all four corners are between 0 and 1, as those of normalised boxes are."""
    x, y, width, height = box.bbox
    return x + width <= 1 and y + height <= 1


def is_corners(box: Annotation) -> bool:
    """Whether the area says that `bbox` holds (left, top, right, bottom)."""
    x, y, width, height = box.bbox
    return (
        width > x and height > y and not _equal(box.area, width * height)
        and _equal(box.area, (width - x) * (height - y))
    )  # fmt: skip


def is_smaller_than_its_area(box: Annotation) -> bool:
    """Whether the object would be larger than its box."""
    return box.area > box.bbox[2] * box.bbox[3] * (1 + _AREA_TOLERANCE)


def faults(file: str, dataset: Dataset) -> list[Fault]:
    """One fault for each wrong unit or order that many boxes of a file are in."""
    boxes = _plain_boxes(dataset)
    return [
        Fault(file, "annotations", f"{count} of {len(boxes)} boxes {reason}")
        for count, reason in _counts(boxes)
        if count >= _SHARE * len(boxes)
    ]


def warnings(dataset: Dataset) -> list[str]:
    """The same where it is some boxes only, and areas that are larger than their boxes."""
    boxes = _plain_boxes(dataset)
    found = [
        f"{count} of {len(boxes)} boxes {reason}"
        for count, reason in _counts(boxes)
        if count < _SHARE * len(boxes)
    ]
    larger = sum(is_smaller_than_its_area(box) for box in boxes)
    if larger:
        found.append(f"{larger} of {len(boxes)} boxes are smaller than the 'area' given for them")
    return found


def _plain_boxes(dataset: Dataset) -> list[Annotation]:
    large = {image.id for image in dataset.images if min(image.width, image.height) >= _LEAST_SIDE}
    return [box for box in dataset.annotations if not box.is_crowd and box.image_id in large]


def _counts(boxes: list[Annotation]) -> list[tuple[int, str]]:
    found = (
        (sum(map(is_in_first_pixel, boxes)),
         "lie between 0 and 1: these are normalised boxes; 'bbox' is in pixels"),
        (sum(map(is_corners, boxes)),
         "have the 'area' of a box from corner to corner; 'bbox' is [x, y, width, height]"),
    )  # fmt: skip
    return [(count, reason) for count, reason in found if count]


def _equal(one: float, other: float) -> bool:
    return abs(one - other) <= _AREA_TOLERANCE * max(abs(other), 1e-9)
