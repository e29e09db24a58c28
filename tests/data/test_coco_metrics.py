import copy
import json

import pytest

from mobiledets_tf.data.coco_metrics import NAMES, coco_metrics

BOX = {"id": 0, "image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}
TRUTH = {"images": [{"id": 1}], "annotations": [BOX], "categories": [{"id": 1, "name": "a"}]}
FOUND = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.5}


@pytest.mark.parametrize("pair", ["coco_fakebbox100", "toy_gt_dt"])
def test_reference_pairs(pair, shared):
    folder = shared / "reference" / "coco_eval"
    case = json.loads((folder / "expected_pycocotools_2.0.11.json").read_text())[pair]
    truth, found = (json.loads((folder / case[key]).read_text()) for key in ("gt", "dt"))
    assert coco_metrics(truth, found) == pytest.approx(case["expected"], abs=1e-9, rel=0)


def test_by_hand(capsys):
    # IoU is 50*40 / 50*50 = 0.8: a hit at 7 of the 10 thresholds (0.5 to 0.8).
    metrics = coco_metrics(TRUTH, [{**FOUND, "bbox": [10, 10, 50, 40]}])
    assert tuple(metrics) == NAMES
    assert metrics["AP50"] == metrics["AP75"] == pytest.approx(1.0)
    assert [metrics[name] for name in ("AP", "AR1", "AR100")] == pytest.approx([0.7] * 3)
    assert metrics["APs"] == -1.0
    assert metrics["APm"] == pytest.approx(0.7)
    assert capsys.readouterr().out == ""


def test_the_arguments_are_not_changed():
    truth, found = copy.deepcopy(TRUTH), [dict(FOUND)]
    coco_metrics(truth, found)
    assert (truth, found) == (TRUTH, [FOUND])


def test_nothing_found_is_zero():
    metrics = coco_metrics(TRUTH, [])
    assert metrics["AP"] == metrics["AR100"] == 0.0
    assert metrics["APl"] == -1.0


def test_a_crowd_is_neither_hit_nor_missed():
    crowd = {**BOX, "id": 2, "bbox": [100, 100, 80, 80], "iscrowd": 1}
    truth = {**TRUTH, "annotations": [BOX, crowd]}
    in_crowd = {**FOUND, "bbox": [110, 110, 20, 20], "score": 0.9}
    assert coco_metrics(truth, [FOUND, in_crowd])["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_id": 2}, "image 2, which is not in the ground truth"),
        ({"score": float("nan")}, "not finite"),
        ({"bbox": [0, 0, float("inf"), 1]}, "not finite"),
    ],
)
def test_what_cannot_be_scored_raises(change, reason):
    with pytest.raises(ValueError, match=reason):
        coco_metrics(TRUTH, [{**FOUND, **change}])
