"""The page of a check, and samples of augmentation."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mobiledets_tf.cli import data as command
from mobiledets_tf.data import check, check_page, classes, coco
from mobiledets_tf.detection import augmentation


def _check(folder, page, *flags):
    return command.run(["mobiledets-data", "--mode=check", f"--images={folder}", f"--report={page}", *flags])


def test_the_page_holds_everything_and_loads_nothing(data, edit, tmp_path, capsys):
    edit(lambda value: value["annotations"][0].update(bbox=[5, 5, 2, 2], area=900))
    edit(lambda value: value["categories"][3].update(name="<three>"))
    val = json.loads((data / "instances_val.json").read_text())
    val["categories"][3]["name"] = "<three>"
    (data / "instances_val.json").write_text(json.dumps(val))
    (data / "val" / "000000.jpg").write_bytes((data / "train" / "000000.jpg").read_bytes())
    page = tmp_path / "check.html"
    assert _check(data, page) == 0
    output, text = capsys.readouterr().out, page.read_text()
    assert f"report: {page}" in output and "boxes  share  images" in output
    assert "&lt;three&gt;" in text and "<three>" not in text
    assert "smaller than its annotated area" in text and "train/000000.jpg, val/000000.jpg" in text
    assert text.count("data:image/jpeg;base64") == 9  # six and three images
    assert not re.search(r'(src|href)="(?!data:)', text) and "<script" not in text


def test_the_page_is_written_where_there_are_faults(data, edit, tmp_path):
    edit(lambda value: value["annotations"][0].update(category_id=99))
    page = tmp_path / "check.html"
    assert _check(data, page) == 1
    assert "&#x27;category_id&#x27; 99 is unknown" in page.read_text()


def test_rare_classes_are_shown_first(data):
    (train, _) = sorted(check.check(coco.find_splits(data)), key=lambda each: each.split.name)
    shown = check_page.chosen(train)
    assert {image.id for image in shown} == {image.id for image in train.dataset.images}


def test_samples_after_augmentation_are_on_the_page(data, tmp_path, capsys):
    page = tmp_path / "check.html"
    assert _check(data, page, "--augmentation=flip", "--augmentation=color", "--image_size=64") == 0
    assert "After flip, color" in page.read_text()
    # The classes of the drawn set are the digits zero to nine.
    assert "flip shows mirror images; 10 of 10 classes are named after a side" in capsys.readouterr().out


def test_augmentation_without_a_page_is_refused(data, capsys):
    assert command.run(["mobiledets-data", "--mode=check", f"--images={data}", "--augmentation=flip"]) == 2
    assert "--augmentation requires --report" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["flip"], ["scale"], ["crop"], ["color"], list(augmentation.STEPS)])
def test_boxes_follow_their_object(names):
    """A coloured square on grey: wherever it goes, the drawn green box is around it."""
    pixels = np.full((80, 120, 3), 110, np.uint8)
    pixels[20:60, 10:40] = (220, 0, 0)
    box = np.array([[20 / 80, 10 / 120, 60 / 80, 40 / 120]], np.float32)
    for seed in range(4):
        (drawn,) = augmentation.samples([pixels], [box], names, 160, seed)
        assert drawn.shape == (160, 160, 3)
        r, g, b = np.moveaxis(drawn.astype(int), -1, 0)
        green = (g > 200) & (r < 60) & (b < 60)
        # The hue moves as well, and a canvas has the mean colour.
        red = (drawn.max(-1).astype(int) - drawn.min(-1) > 90) & ~green
        assert red.sum() > 100 and green.sum() > 40
        for axis in (0, 1):
            inside, around = np.flatnonzero(red.any(axis)), np.flatnonzero(green.any(axis))
            assert abs(inside[0] - around[0]) <= 4 and abs(inside[-1] - around[-1]) <= 4


def test_names_that_mirror_images_would_belie():
    told = ["left turn", "turn_right", "TurnLeft", "A", "7", "12", "seven", "arrow l", "right"]
    free = ["bright", "bolt", "10 of clubs", "cleft", "car", "copyright sign", "leftover"]
    assert classes.told_by_side([*told, *free]) == told


def test_pictures_of_any_shape_have_thumbnails(tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (3, 600), (9, 9, 9)).save(tmp_path / "train" / "a.png")
    value = {
        "images": [{"id": 1, "file_name": "a.png", "width": 3, "height": 600}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 3, 30]}],
    }
    (tmp_path / "instances_train.json").write_text(json.dumps(value))
    assert _check(tmp_path, tmp_path / "page.html") == 0
