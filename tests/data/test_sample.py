import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from mobiledets_tf.data import check, coco, sample
from mobiledets_tf.errors import InputError


def _hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        sample.write_sample(tmp_path / name, num_train=4, num_val=2, image_size=64, seed=seed)
    first, again, other = (_hashes(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert not {first[name] for name in first if name.endswith(".jpg")} & set(other.values())


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path):
    sample.write_sample(tmp_path / "few", num_train=2, num_val=1, image_size=64)
    sample.write_sample(tmp_path / "more", num_train=5, num_val=3, image_size=64)
    assert _hashes(tmp_path / "few" / "train").items() <= _hashes(tmp_path / "more" / "train").items()
    assert _hashes(tmp_path / "few" / "val").items() <= _hashes(tmp_path / "more" / "val").items()


def test_it_is_sound_varied_and_holds_empty_images(tmp_path):
    sample.write_sample(tmp_path / "data", num_train=150, num_val=40, image_size=160)
    checked = check.check(coco.find_splits(tmp_path / "data"))
    assert [(each.split.name, each.faults) for each in checked] == [("train", ()), ("val", ())]
    train = checked[0].dataset
    counts = [len(boxes) for boxes in train.by_image().values()]
    assert 2 <= counts.count(0) <= 30 and max(counts) == 5
    assert {annotation.category_id for annotation in train.annotations} == set(range(1, 11))
    heights = np.array([annotation.bbox[3] for annotation in train.annotations])
    assert heights.min() >= 26 and heights.max() <= 72 and heights.std() > 8
    ids = [{image.id for image in each.dataset.images} for each in checked]
    assert not ids[0] & ids[1]


def test_train_and_val_share_no_scan():
    for train, val in zip(sample._scans("train"), sample._scans("val"), strict=True):
        train_set = {scan.tobytes() for scan in train}
        assert len(train) > 100 and len(val) > 25
        assert not train_set & {scan.tobytes() for scan in val}


def test_boxes_hold_the_ink(pristine):
    """Where a box is drawn, the picture differs from its surroundings more than elsewhere."""
    value = json.loads((pristine / "instances_train.json").read_text())
    paths = {image["id"]: pristine / "train" / image["file_name"] for image in value["images"]}
    for annotation in value["annotations"]:
        pixels = np.asarray(Image.open(paths[annotation["image_id"]]).convert("L"), float)
        x, y, width, height = annotation["bbox"]
        inside = pixels[y : y + height, x : x + width]
        assert np.ptp(inside) > 40, annotation


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        sample.write_sample(tmp_path, num_train=1, num_val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_when_writing_stops(tmp_path, monkeypatch, error):
    write_image = sample._write_image

    def fail_at_the_third(path, *args):
        if path.name == "000002.jpg":
            raise error
        return write_image(path, *args)

    monkeypatch.setattr(sample, "_write_image", fail_at_the_third)
    with pytest.raises(type(error)):
        sample.write_sample(tmp_path / "data", num_train=4, num_val=1, image_size=64)
    assert list(tmp_path.iterdir()) == []
