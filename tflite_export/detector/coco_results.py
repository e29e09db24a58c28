"""COCO results, and the ground truth that they are scored against. Does not import TensorFlow."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobiledets_tf.data import coco
from mobiledets_tf.data.coco_metrics import Scores, coco_results, coco_scores, pixel_boxes
from mobiledets_tf.errors import InputError, nearest
from tflite_export.detector.file_detector import Detections


def to_coco(
    detections: Detections, image: Mapping[str, Any], category_ids: Sequence[int | None] | None = None
) -> list[dict[str, Any]]:
    """Converts detections to COCO results: boxes (x, y, width, height) in pixels of the original image.

    Args:
      detections: detections of one image.
      image: the image's COCO entry with `id`, `height`, `width`.
      category_ids: the COCO category id of each class, starting with class 1; None drops the class.
        Default: the class number is the category id.
    """
    boxes = pixel_boxes(detections.boxes, image["height"], image["width"])
    classes = detections.classes.tolist()
    if category_ids is None:
        return coco_results(image["id"], boxes, classes, detections.scores)
    of_class = {number: found for number, found in enumerate(category_ids, 1) if found is not None}
    kept = [row for row, class_id in enumerate(classes) if class_id in of_class]
    ids = [of_class[classes[row]] for row in kept]
    return coco_results(image["id"], boxes[kept], ids, detections.scores[kept])


@dataclasses.dataclass(frozen=True)
class Truth:
    """Ground truth of an annotation file to score detections against.

    Attributes:
      dataset: its images, boxes and categories.
      faults: number of invalid entries that were left out.
    """

    dataset: coco.Dataset
    faults: int

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Truth":
        """Reads a COCO annotation file; the file may have any name.

        Raises:
          InputError: the file does not exist or contains no COCO annotations.
        """
        if not os.path.isfile(path):
            raise InputError(f"--annotations={path} is not a file")
        dataset, faults = coco.load(coco.Split("", Path(path).parent, Path(path)))
        return cls(dataset, len(faults))

    def images(self) -> dict[str, coco.Image]:
        """Returns the images by file name."""
        return {image.file_name: image for image in self.dataset.images}

    def category_ids(self, labels: Sequence[str], num_classes: int) -> list[int | None]:
        """Returns the category id of each class of a model, or None for a class without a category.

        Classes and categories are matched by name, or in order where the model has no labels.

        Raises:
          InputError: a category is not a class of the model, or, without labels, the counts differ.
        """
        categories = self.dataset.categories
        if not labels:
            if len(categories) != num_classes:
                raise InputError(
                    f"the model has {num_classes} classes without labels, but the annotations have "
                    f"{len(categories)} categories; set --labels"
                )
            return [category.id for category in categories]
        ids = {_spaced(category.name): category.id for category in categories}
        known = {_spaced(label) for label in labels}
        for name in ids:
            if name not in known:
                raise InputError(
                    f"category {name!r} of the annotations is not a class of the model"
                    f"{nearest(name, known)}; set --labels to a file with this name"
                )
        return [ids.get(_spaced(label)) for label in labels]

    def score(self, results: Sequence[dict[str, Any]]) -> Scores:
        """Returns the COCO metrics of results on all images of the file."""
        return coco_scores(
            {
                "images": [{"id": i.id, "width": i.width, "height": i.height} for i in self.dataset.images],
                "annotations": [
                    {
                        "image_id": a.image_id,
                        "category_id": a.category_id,
                        "bbox": list(a.bbox),
                        "area": a.area,
                        "iscrowd": int(a.is_crowd),
                    }
                    for a in self.dataset.annotations
                ],
                "categories": [{"id": c.id, "name": c.name} for c in self.dataset.categories],
            },
            results,
        )


def _spaced(name: str) -> str:
    return " ".join(name.split())
