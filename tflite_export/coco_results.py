"""Detections as COCO results, and the ground truth that they are scored against. No TensorFlow here."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf.data import coco
from mobiledets_tf.data.coco_metrics import Scores, coco_scores
from mobiledets_tf.errors import InputError, nearest
from tflite_export.file_detector import Detections


def to_coco(
    detections: Detections, image: Mapping[str, Any], category_ids: Sequence[int | None] | None = None
) -> list[dict[str, Any]]:
    """Detections as COCO results: boxes (x, y, width, height) in the image's own pixels.

    Args:
      detections: of one image.
      image: its COCO entry with `id`, `height`, `width`.
      category_ids: of each class, the first of class 1; None drops the class. Default: the class itself.
    """
    scale = np.array([image["height"], image["width"]] * 2, np.float64)
    boxes = detections.boxes.astype(np.float64) * scale
    classes = detections.classes.tolist()
    if category_ids is not None:
        of_class = dict(enumerate(category_ids, 1))
        classes = [of_class.get(class_id) for class_id in classes]
    found = zip(boxes.tolist(), classes, detections.scores.tolist(), strict=True)
    return [
        {
            "image_id": image["id"],
            "category_id": class_id,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for (y0, x0, y1, x1), class_id, score in found
        if class_id is not None
    ]


@dataclasses.dataclass(frozen=True)
class Truth:
    """An annotation file to score detections against.

    Attributes:
      dataset: its images, boxes and categories.
      faults: entries that were left out.
    """

    dataset: coco.Dataset
    faults: int

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Truth":
        """Reads a COCO annotation file of any name.

        Raises:
          InputError: no COCO annotations.
        """
        if not os.path.isfile(path):
            raise InputError(f"--annotations={path} is no file")
        dataset, faults = coco.load(coco.Split("", Path(path).parent, Path(path)))
        return cls(dataset, len(faults))

    def images(self) -> dict[str, coco.Image]:
        """File name -> image."""
        return {image.file_name: image for image in self.dataset.images}

    def category_ids(self, labels: Sequence[str], num_classes: int) -> list[int | None]:
        """The category of each class of a model, by name; by number where the model has no names.

        Raises:
          InputError: a category that no class of the model has, or without names another number.
        """
        categories = self.dataset.categories
        if not labels:
            if len(categories) != num_classes:
                raise InputError(f"the model has no labels and {num_classes} classes, the annotations have "
                                 f"{len(categories)} categories; give --labels")  # fmt: skip
            return [category.id for category in categories]
        ids = {_spaced(category.name): category.id for category in categories}
        known = {_spaced(label) for label in labels}
        for name in ids:
            if name not in known:
                raise InputError(f"category {name!r} of the annotations is no class of the model"
                                 f"{nearest(name, known)}; give --labels that name it so")  # fmt: skip
        return [ids.get(_spaced(label)) for label in labels]

    def score(self, results: Sequence[dict[str, Any]]) -> Scores:
        """The COCO metrics of results on all images of the file."""
        return coco_scores(
            {
                "images": [{"id": i.id, "width": i.width, "height": i.height} for i in self.dataset.images],
                "annotations": [
                    {"image_id": a.image_id, "category_id": a.category_id, "bbox": list(a.bbox),
                     "area": a.area, "iscrowd": int(a.is_crowd)}
                    for a in self.dataset.annotations
                ],
                "categories": [{"id": c.id, "name": c.name} for c in self.dataset.categories],
            },
            results,
        )  # fmt: skip


def _spaced(name: str) -> str:
    return " ".join(name.split())
