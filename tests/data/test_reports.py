"""Inputs on which tools are reported to fail; each is a kind of fault, with what is right for it."""

import io
import json
import runpy
import shutil
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from mobiledets_tf.cli import data as command
from mobiledets_tf.compat import tf
from mobiledets_tf.data import check, classes, coco, records
from mobiledets_tf.errors import CheckFailed, InputError


@pytest.fixture(scope="module")
def inputs(shared, tmp_path_factory):
    """Every photo is grey with a red square at x 10-40, y 20-60."""
    script = shared / "reports" / "make_inputs.py"
    if not script.exists():
        pytest.skip(f"{script} is not there")
    folder = tmp_path_factory.mktemp("reports")
    before, sys.argv = sys.argv, [str(script), str(folder)]
    try:
        runpy.run_path(str(script))
    finally:
        sys.argv = before
    return folder


@pytest.fixture
def run(inputs, tmp_path, capsys):
    """Runs a mode on an input; returns exit code, output and the folder written to."""

    def call(name, mode="convert", *flags):
        output = tmp_path / "records"
        arguments = [f"--mode={mode}", f"--images={inputs / name}", f"--output_dir={output}", *flags]
        code = command.run(["mobiledets-data", *arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err, output

    return call


def _examples(folder, split="train"):
    return list(records.read_examples(records.resolve(folder, split)))


def _is_red(example):
    pixels = np.asarray(Image.open(io.BytesIO(example.encoded)).convert("RGB"), int)
    assert pixels.shape[:2] == (example.height, example.width)
    sides = example.boxes[0] * np.array([example.height, example.width] * 2)
    top, left, bottom, right = np.round(sides).astype(int)
    inside = pixels[top + 2 : bottom - 2, left + 2 : right - 2]
    return bool((inside[..., 0] > 180).all() and (inside[..., 1] < 60).all())


@pytest.mark.parametrize("mode", ["check", "convert"])
def test_turned_pictures_are_counted_and_agree_with_their_boxes(run, mode):
    code, text, output = run("exif_turn_stored_size", mode)
    assert code == 0
    assert "images with an EXIF orientation: 2, of which 2 are read upright and 0 as stored" in text
    if mode == "convert":
        assert all(map(_is_red, _examples(output, "train") + _examples(output, "val")))


def _turned(folder, boxes, xmp=False):
    """One photo of red squares, stored as 120x80 and tagged to be turned."""
    (folder / "train").mkdir(parents=True)
    picture = Image.new("RGB", (120, 80), (110,) * 3)
    options = {"quality": 95}
    if xmp:
        options["xmp"] = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    else:
        exif = picture.getexif()
        exif[0x112] = 6
        options["exif"] = exif
    for number in (1, 2):
        picture.save(folder / "train" / f"{number}.jpg", **options)
    size = {"width": 120, "height": 80}
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} | size for i in (1, 2)],
        "categories": [{"id": 1, "name": "bolt"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes, 1)
        ],
    }
    (folder / "instances_train.json").write_text(json.dumps(content))
    (checked,) = check.check(coco.find_splits(folder))
    return checked


@pytest.mark.parametrize(
    ("box", "size", "said"),
    [
        ([10, 85, 30, 30], (80, 120), "2 are read upright and 0 as stored; their boxes fit only this way"),
        ([85, 10, 30, 30], (120, 80), "0 are read upright and 2 as stored; their boxes fit only this way"),
        ([10, 10, 30, 30], (80, 120), "--exif_turn=stored reads them as stored"),
    ],
)
def test_boxes_tell_which_picture_they_are_of(tmp_path, box, size, said):
    checked = _turned(tmp_path, [box])
    assert not checked.faults
    assert {(image.width, image.height) for image in checked.dataset.images} == {size}
    assert any(said in line for line in checked.warnings), checked.warnings


def test_the_flag_decides_where_nothing_else_does(tmp_path):
    _turned(tmp_path, [[10, 10, 30, 30]])
    (checked,) = check.check(coco.find_splits(tmp_path), "stored")
    assert not checked.faults and checked.dataset.images[0].as_stored
    assert (checked.dataset.images[0].width, checked.dataset.images[0].height) == (120, 80)


def test_an_orientation_in_other_metadata_turns_nothing(tmp_path):
    checked = _turned(tmp_path, [[85, 10, 30, 30]], xmp=True)
    assert not checked.faults and not any("EXIF" in line for line in checked.warnings)


def test_pictures_that_training_cannot_decode_become_clean_copies(run, inputs):
    code, text, output = run("jpeg_without_end")
    files = list((inputs / "jpeg_without_end" / "train").iterdir())
    assert code == 0 and f"decoder used in training rejects: {len(files)}" in text
    for example in _examples(output) + _examples(output, "val"):
        assert tf.io.decode_jpeg(example.encoded, channels=3).shape == (480, 640, 3)


def test_a_record_that_cannot_be_decoded_is_named(tmp_path, inputs):
    (path, *_) = sorted((inputs / "jpeg_without_end" / "train").iterdir())
    feature = {
        "image/encoded": [path.read_bytes()],
        "image/source_id": [b"photo_7"],
        "image/format": [b"jpeg"],
    }
    features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=value)) for key, value in feature.items()
    }
    for key, value in (("height", 480), ("width", 640)):
        features[f"image/{key}"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    file = str(tmp_path / "train-00000-of-00001.tfrecord")
    with tf.io.TFRecordWriter(file) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    with pytest.raises(CheckFailed, match="'photo_7'.*cannot be decoded"):
        records.require_decodable([file])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("boxes_from_0_to_1", "6 of 6 boxes lie between 0 and 1 and look normalised"),
        ("corners_for_sizes", "6 of 6 boxes look like two corners, judging by their 'area'"),
        ("names_alike", "category 2: 'name' 'bolt ' was already used as 'bolt'"),
    ],
)
@pytest.mark.parametrize("mode", ["check", "convert"])
def test_faults_stop_both_modes(run, name, reason, mode):
    code, text, output = run(name, mode)
    assert code == 1 and reason in text and not output.exists()


def test_corners_that_stick_out_are_recognised(tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (120, 80)).save(tmp_path / "train" / "1.png")
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 120, "height": 80}],
        "categories": [{"id": 1, "name": "bolt"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, 20, 100, 70]}],
    }
    (tmp_path / "instances_train.json").write_text(json.dumps(content))
    (checked,) = check.check(coco.find_splits(tmp_path))
    assert "but looks like two corners" in checked.faults[0].reason


@pytest.mark.parametrize("parent", [True, False])
def test_a_root_category_does_not_become_class_1(tmp_path, parent):
    (tmp_path / "train").mkdir()
    for number in (1, 2):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / "train" / f"{number}.png")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 40} for i in (1, 2)],
        "categories": [
            {"id": 0, "name": "parts", "supercategory": "none"},
            {"id": 1, "name": "bolt", "supercategory": "parts" if parent else ""},
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 10, 10]}],
    }
    (tmp_path / "instances_train.json").write_text(json.dumps(content))
    (checked,) = check.check(coco.find_splits(tmp_path))
    assert [c.name for c in checked.dataset.categories] == (["bolt"] if parent else ["parts", "bolt"])
    said = "is left out" if parent else "becomes class 1"
    assert any(
        f"category 0 'parts' has no boxes and {said}" in line or said in line for line in checked.warnings
    )


def test_convert_says_what_check_says(run):
    _, text, _ = run("photos_without_entry")
    assert "without an entry in instances_train.json, not used: 3 ('4.jpg', ...)" in text
    _, checked, _ = run("photos_without_entry", "check")
    said = "without an entry in instances_train.json, not used: 3"
    assert said in checked and "class 'bolt' has few boxes: 3" in checked


def test_a_photo_on_both_sides_is_counted(run):
    code, text, _ = run("same_photo_both_sides")
    assert (
        code == 0
        and "val: warning: images that also occur in train: 6, of which 6 are identical files" in text
    )


def test_a_photo_that_was_saved_again_is_a_near_duplicate(shared, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(shared / "data" / "cards_tiny", data)
    first = sorted((data / "train").iterdir())[0]
    val = sorted((data / "val").iterdir())[0]
    with Image.open(first) as photo, Image.open(val) as old:
        photo.resize(old.size).save(val, quality=60)
    train_side, val_side = sorted(check.check(coco.find_splits(data)), key=lambda each: each.split.name)
    assert any("also occur in train: 1, of which 0 are identical" in line for line in val_side.warnings)
    assert not any("repeat" in line for line in train_side.warnings)


def test_all_150_boxes_are_kept(run):
    _, _, output = run("boxes_150")
    dataset = json.loads((output / "dataset.json").read_text())
    assert dataset["splits"]["train"][records.MOST_BOXES] == 150
    files = records.resolve(output, "train")
    assert records.most_boxes(files) == 150
    (output / "dataset.json").unlink()
    assert records.most_boxes(files) == 150  # as in a folder of others


def test_crowds_may_be_floats(run):
    code, text, output = run("crowd_as_float")
    assert code == 0 and "(0 crowd)" in text
    code, text, output = run("crowd_over_all")
    assert code == 0 and "12 boxes (6 crowd)" in text
    assert [each.is_crowd.tolist() for each in _examples(output)] == [[False, True]] * 5


def test_a_second_conversion_compares_classes_by_name(run, inputs):
    assert run("classes_train")[0] == 0
    other = inputs / "classes_val_lacks_one"
    code, text, output = run(
        "classes_val_lacks_one/val", "convert", f"--annotations={other / 'instances_val.json'}"
    )
    assert code == 2 and "(1, 'anchor')" in text and "(1, 'bolt')" in text
    assert len(_examples(output, "val")) == 1


def test_names_of_both_sides_are_in_the_message():
    with pytest.raises(
        InputError, match="class 1 is 'bolt' in val and 'anchor' in train.*class 3 is missing"
    ):
        classes.require_same({1: "bolt", 2: "nut"}, "val", {1: "anchor", 2: "bolt", 3: "nut"}, "train")
    classes.require_same({1: "bolt "}, "val", {1: "bolt"}, "train")


@pytest.mark.parametrize(
    ("there", "given"),
    [
        ("grün.jpg", unicodedata.normalize("NFD", "grün.jpg")),
        ("a.JPG", "a.jpg"),
        ("a.jpeg", "A.jpg"),
        ("a.png", "a.jpg"),
    ],
)
def test_the_near_file_is_named(tmp_path, there, given):
    from mobiledets_tf.data import image_files

    (tmp_path / there).touch()
    with pytest.raises(image_files.PictureError) as caught:
        image_files.locate(tmp_path, given)
    assert f"is missing (did you mean {there!r}" in str(caught.value)
    assert ("another Unicode form" in str(caught.value)) == (there == "grün.jpg")


def test_records_of_others_are_scored_by_their_place(shared):
    files = [str(shared / "data" / "formats" / "dice_tfrecords" / "test.record")]
    truth = records.ground_truth(files)
    assert [image["id"] for image in truth["images"]] == list(range(1, 51))
    assert len(truth["annotations"]) == 308 and len(truth["categories"]) == 6
