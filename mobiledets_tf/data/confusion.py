"""Confusion matrix of detections: boxes are matched by position alone and then counted by class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

IOU_THRESHOLD = 0.5
SCORE_THRESHOLD = 0.3


def confusion(ground_truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> np.ndarray:
    """Counts pairs of a true and a detected class.

    The detections of an image are matched in order of decreasing score. Each is matched to the
    unmatched ground-truth box that it overlaps most, if their intersection over union is at least
    0.5. Detections with a score below 0.3 and crowd boxes are ignored.

    Args:
      ground_truth: a COCO dictionary, as in `coco_metrics.coco_scores`.
      detections: COCO results, as in `coco_metrics.coco_scores`.

    Returns:
      int64 [classes + 1, classes + 1], with true classes as rows and detected classes as columns, in
      the order of `categories`. The last row counts detections that match no box, the last column
      missed boxes.
    """
    order = {category["id"]: number for number, category in enumerate(ground_truth["categories"])}
    nothing = len(order)
    counts = np.zeros((nothing + 1, nothing + 1), np.int64)
    truth, found = _by_image(ground_truth["annotations"]), _by_image(detections)
    for image_id in truth.keys() | found.keys():
        free = [box for box in truth.get(image_id, []) if not box.get("iscrowd")]
        for detection in sorted(found.get(image_id, []), key=lambda box: -box["score"]):
            if detection["score"] < SCORE_THRESHOLD:
                break
            overlaps = [_iou(detection["bbox"], box["bbox"]) for box in free]
            best = int(np.argmax(overlaps)) if overlaps else -1
            row = nothing
            if overlaps and overlaps[best] >= IOU_THRESHOLD:
                row = order[free.pop(best)["category_id"]]
            counts[row, order[detection["category_id"]]] += 1
        for box in free:
            counts[order[box["category_id"]], nothing] += 1
    return counts


def _by_image(boxes: Sequence[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for box in boxes:
        found.setdefault(box["image_id"], []).append(box)
    return found


def _iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns the intersection over union of two boxes (x, y, width, height)."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)
