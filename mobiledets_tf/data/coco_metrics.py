"""Computes the twelve COCO detection metrics with pycocotools."""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class Scores:
    """COCO metrics computed by pycocotools.

    Attributes:
      metrics: maps each of `NAMES` to a value from 0 to 1, or -1 if there is nothing to measure.
      per_class: maps each class name to its `AP` and `AP50`, which are -1 for a class without boxes.
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]


def coco_results(
    image_id: int, boxes: Any, category_ids: Sequence[int] | np.ndarray, scores: Any
) -> list[dict[str, Any]]:
    """Returns the detections of one image as COCO results.

    Args:
      image_id: the image's id.
      boxes: [detections, 4] array of (x, y, width, height) in pixels of the image; see `pixel_boxes`.
      category_ids: the category of each detection.
      scores: [detections] array.
    """
    return [
        {"image_id": image_id, "category_id": int(category_id), "bbox": box, "score": score}
        for box, category_id, score in zip(boxes.tolist(), category_ids, scores.tolist(), strict=True)
    ]


def pixel_boxes(corners: Any, height: int, width: int) -> Any:
    """Converts boxes (ymin, xmin, ymax, xmax), fractions of an image, to (x, y, width, height) in pixels.

    Args:
      corners: [boxes, 4] array.
      height, width: size of the image in pixels.

    Returns:
      float64 [boxes, 4].
    """
    import numpy as np

    top, left, bottom, right = (corners.astype(np.float64) * [height, width, height, width]).T
    return np.stack([left, top, right - left, bottom - top], axis=1)


def coco_metrics(ground_truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns only the `metrics` of `coco_scores`."""
    return coco_scores(ground_truth, detections).metrics


def coco_scores(ground_truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> Scores:
    """Scores detections against ground truth.

    Args:
      ground_truth: a COCO dictionary with `images`, `annotations` (`image_id`, `category_id`,
        `bbox` [x, y, width, height] in pixels, `area`, `iscrowd`) and `categories`.
      detections: dictionaries with `image_id`, `category_id`, `bbox` and `score`.

    Raises:
      ValueError: a detection refers to an image that is not in the ground truth, or a box or score
        is not finite.
    """
    # Imported here because it loads parts of matplotlib, which commands that only parse flags don't need.
    from pycocotools.cocoeval import COCOeval

    _validate(ground_truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _index(ground_truth, ground_truth["annotations"]), _index(ground_truth, detections), "bbox"
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = {name: float(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}
    return Scores(metrics, _per_class(evaluation, ground_truth["categories"]))


def _per_class(evaluation: Any, categories: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    # Axes: IoU threshold 0.5 to 0.95, recall, class, area (first: all), detections (last: 100).
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    column = {class_id: index for index, class_id in enumerate(evaluation.params.catIds)}
    return {
        category["name"]: {
            "AP": _mean(precision[:, :, column[category["id"]]]),
            "AP50": _mean(precision[0, :, column[category["id"]]]),
        }
        for category in categories
    }


def _mean(precision: Any) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0


def _index(ground_truth: dict[str, Any], boxes: Sequence[dict[str, Any]]) -> Any:
    """Builds a COCO object of copies of the boxes, numbered from 1: id 0 means 'no match' in pycocotools."""
    from pycocotools.coco import COCO

    index = COCO()
    index.dataset = {
        "images": ground_truth["images"],
        "categories": ground_truth["categories"],
        "annotations": [_box(number, box) for number, box in enumerate(boxes, start=1)],
    }
    index.createIndex()
    return index


def _box(number: int, box: dict[str, Any]) -> dict[str, Any]:
    _, _, width, height = box["bbox"]
    # The area of a detection is that of its box, and it is never a crowd, whatever its file says.
    own = {"area": width * height, "iscrowd": 0} if "score" in box else {}
    return {"iscrowd": 0, "area": width * height, **box, **own, "id": number}


def _validate(ground_truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> None:
    known = {image["id"] for image in ground_truth["images"]}
    for detection in detections:
        if detection["image_id"] not in known:
            raise ValueError(f"detection on image {detection['image_id']}, which is not in the ground truth")
        if not all(math.isfinite(number) for number in (*detection["bbox"], detection["score"])):
            raise ValueError(
                f"detection on image {detection['image_id']} is not finite: "
                f"box {detection['bbox']}, score {detection['score']}"
            )
