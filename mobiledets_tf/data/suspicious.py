"""Finds boxes that are formally valid but probably use a wrong unit or order of numbers."""

from mobiledets_tf.data.coco import Annotation, Dataset, Fault

# If at least this share of a file's boxes is suspicious, the whole file uses a wrong unit or order;
# fewer are slips in single boxes.
_SHARE = 0.5
_AREA_TOLERANCE = 0.01
# Images with a shorter side (pixels) are ignored, because a box inside their first pixel may be correct.
_LEAST_SIDE = 8


def is_in_first_pixel(box: Annotation) -> bool:
    """Returns whether a box lies within the first pixel (corners from 0 to 1), as normalised boxes do."""
    x, y, width, height = box.bbox
    return x + width <= 1 and y + height <= 1


def is_corners(box: Annotation) -> bool:
    """Returns whether the area of a box implies that `bbox` contains (left, top, right, bottom)."""
    x, y, width, height = box.bbox
    return (
        width > x
        and height > y
        and not _equal(box.area, width * height)
        and _equal(box.area, (width - x) * (height - y))
    )


def is_smaller_than_its_area(box: Annotation) -> bool:
    """Returns whether the annotated area of an object is larger than its box."""
    return box.area > box.bbox[2] * box.bbox[3] * (1 + _AREA_TOLERANCE)


def faults(file: str, dataset: Dataset) -> list[Fault]:
    """Returns a fault for each wrong unit or order of numbers that affects half of the boxes or more."""
    boxes = _plain_boxes(dataset)
    return [
        Fault(file, "annotations", f"{count} of {len(boxes)} boxes {reason}")
        for count, reason in _counts(boxes)
        if count >= _SHARE * len(boxes)
    ]


def warnings(dataset: Dataset) -> list[str]:
    """Returns warnings about such units or orders in fewer boxes, and about areas larger than their boxes."""
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
        (
            sum(map(is_in_first_pixel, boxes)),
            "lie between 0 and 1 and look normalised; 'bbox' should be in pixels",
        ),
        (
            sum(map(is_corners, boxes)),
            "look like two corners, judging by their 'area'; 'bbox' should be [x, y, width, height]",
        ),
    )
    return [(count, reason) for count, reason in found if count]


def _equal(one: float, other: float) -> bool:
    return abs(one - other) <= _AREA_TOLERANCE * max(abs(other), 1e-9)
