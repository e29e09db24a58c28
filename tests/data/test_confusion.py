"""Classes taken for each other, by hand; AP of each class."""

import numpy as np
import pytest

from mobiledets_tf.data.coco_metrics import coco_scores
from mobiledets_tf.data.confusion import confusion

BOX, FAR = [10.0, 10.0, 20.0, 20.0], [60.0, 60.0, 20.0, 20.0]


def truth(*boxes):
    return {
        "images": [{"id": 1, "width": 100, "height": 100}, {"id": 2, "width": 100, "height": 100}],
        "annotations": [
            {"id": number, "image_id": image, "category_id": kind, "bbox": box, "iscrowd": crowd}
            for number, (image, kind, box, crowd) in enumerate(boxes, 1)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }


def found(image, kind, box, score):
    return {"image_id": image, "category_id": kind, "bbox": box, "score": score}


def test_pairs_are_counted_by_place():
    given = truth((1, 3, BOX, 0), (1, 7, FAR, 0), (2, 7, BOX, 0), (2, 3, FAR, 1))
    detections = [
        found(1, 3, BOX, 0.9),  # right
        found(1, 3, [12.0, 10.0, 20.0, 20.0], 0.8),  # the same again: nothing is left for it
        found(1, 3, FAR, 0.7),  # a dog taken for a cat
        found(2, 7, BOX, 0.2),  # below the threshold: the dog is missed
    ]
    assert confusion(given, detections).tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 0]]


def test_nothing_found_and_nothing_there():
    assert confusion(truth((1, 3, BOX, 0)), []).tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert not np.any(confusion(truth(), []))


def test_ap_of_each_class():
    given = truth((1, 3, BOX, 0), (2, 3, FAR, 0))
    scores = coco_scores(given, [found(1, 3, BOX, 0.9), found(2, 3, BOX, 0.8)])
    assert scores.per_class["dog"] == {"AP": -1.0, "AP50": -1.0}
    # One of two boxes found: precision 1 up to a recall of one half (51 of 101 points).
    assert scores.per_class["cat"]["AP50"] == pytest.approx(51 / 101)
    assert scores.metrics["AP50"] == pytest.approx(51 / 101)
