"""Formats are told apart and read: against what was written, and against another reader."""

import json
import random
import shutil

import numpy as np
import pytest
from PIL import Image

from mobiledets_tf.cli import data as command
from mobiledets_tf.compat import tf
from mobiledets_tf.data import check, formats, records
from mobiledets_tf.errors import InputError

FORMATS = ("voc", "yolo", "cvat", "labelme", "label_studio", "roboflow", "coco")


def _read(folder, name=None, annotations=None):
    found, splits = formats.read(str(folder), annotations and str(annotations), name)
    return found, check.check(splits)


def _boxes(checked):
    names = {c.id: c.name for c in checked.dataset.categories}
    files = {image.id: image.file_name.rpartition("/")[2] for image in checked.dataset.images}
    return sorted(
        (files[box.image_id], names[box.category_id], *box.bbox) for box in checked.dataset.annotations
    )


def _require_equal(ours, theirs, tolerance):
    """Every box has its own partner of the same image and class within the tolerance, in pixels."""
    left = list(theirs)
    assert len(ours) == len(left)
    for box in ours:
        near = [
            o for o in left if o[:2] == box[:2] and np.abs(np.subtract(o[2:], box[2:])).max() <= tolerance
        ]
        assert near, box
        left.remove(near[0])


@pytest.mark.parametrize("name", FORMATS)
def test_random_sets_come_back_to_a_tenth_of_a_pixel(name, writers, rounds, tmp_path):
    for seed in range(max(2, rounds // 12)):
        truth = writers.Truth(random.Random(seed))
        folder = tmp_path / f"{name}{seed}"
        writers.WRITERS[name](truth, folder)
        found, (checked,) = _read(folder)
        assert found == name and not checked.faults, [str(fault) for fault in checked.faults]
        _require_equal(_boxes(checked), [(f, c, *b) for f, c, b in truth.boxes], 0.1)
        sizes = {
            image.file_name.rpartition("/")[2]: (image.width, image.height)
            for image in checked.dataset.images
        }
        assert sizes == truth.sizes
        assert not any("not used" in line for line in checked.warnings), checked.warnings
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["voc", "yolo", "cvat", "labelme", "coco"])
def test_another_reader_reads_the_same(name, writers, tmp_path):
    globox = pytest.importorskip("globox")
    truth = writers.Truth(random.Random(5), images=6)
    writers.WRITERS[name](truth, tmp_path)
    if name == "voc":
        theirs = globox.AnnotationSet.from_pascal_voc(tmp_path / "annotations")
    elif name == "yolo":
        theirs = globox.AnnotationSet.from_yolo_v5(
            tmp_path / "labels/train", image_folder=tmp_path / "images/train"
        )
    elif name == "cvat":
        theirs = globox.AnnotationSet.from_cvat(tmp_path / "annotations.xml")
    elif name == "labelme":
        theirs = globox.AnnotationSet.from_labelme(tmp_path)
    else:
        theirs = globox.AnnotationSet.from_coco(tmp_path / "annotations" / "instances_train2017.json")
    _, (checked,) = _read(tmp_path)
    label = (lambda text: writers.NAMES[int(text)]) if name == "yolo" else str
    others = [
        (a.image_id, label(b.label), b.xmin, b.ymin, b.xmax - b.xmin, b.ymax - b.ymin)
        for a in theirs
        for b in a.boxes
    ]
    if name == "labelme":  # it keeps the path it was given
        others = [(image.rpartition("/")[2], *rest) for image, *rest in others]
    _require_equal(_boxes(checked), others, 0.11)


def test_photos_with_voc_as_globox_counts_them(shared, tmp_path):
    globox = pytest.importorskip("globox")
    folder = shared / "data" / "formats" / "raccoon_voc"
    found, (checked,) = _read(folder)
    theirs = globox.AnnotationSet.from_pascal_voc(folder / "annotations")
    assert found == "voc" and not checked.faults
    assert len(checked.dataset.images) == len(theirs) == 40
    others = [
        (a.image_id, b.label, b.xmin, b.ymin, b.xmax - b.xmin, b.ymax - b.ymin)
        for a in theirs
        for b in a.boxes
    ]
    assert len(others) == 42
    _require_equal(_boxes(checked), others, 1e-6)
    output = tmp_path / "records"
    assert (
        command.run(["mobiledets-data", "--mode=convert", f"--images={folder}", f"--output_dir={output}"])
        == 0
    )
    dataset = json.loads((output / "dataset.json").read_text())["splits"]
    assert [dataset[split]["images"] for split in ("train", "val")] == [32, 8]
    assert sum(dataset[split]["boxes"] for split in ("train", "val")) == 42


def test_records_of_others_as_tensorflow_counts_them(shared, tmp_path, capsys):
    folder, output = shared / "data" / "formats" / "dice_tfrecords", tmp_path / "records"
    assert (
        command.run(["mobiledets-data", "--mode=convert", f"--images={folder}", f"--output_dir={output}"])
        == 0
    )
    text = capsys.readouterr().out
    assert "format tfrecord, splits" in text and "called test in the data; it is used as val" in text
    for source, split in (("train.record", "train"), ("test.record", "val")):
        counts, encoded = {}, []
        for raw in tf.data.TFRecordDataset(str(folder / source)).as_numpy_iterator():
            feature = tf.train.Example.FromString(raw).features.feature
            encoded.append(feature["image/encoded"].bytes_list.value[0])
            for text in feature["image/object/class/text"].bytes_list.value:
                counts[text.decode()] = counts.get(text.decode(), 0) + 1
        written = json.loads((output / "dataset.json").read_text())["splits"][split]
        assert written["boxes_per_category"] == counts and written["images"] == len(encoded)
        # Not one photo is decoded and encoded again.
        assert [e.encoded for e in records.read_examples(records.resolve(output, split))] == encoded


def test_a_devkit_has_its_own_division(writers, tmp_path):
    truth = writers.Truth(random.Random(1), images=5)
    writers.voc(truth, tmp_path / "VOC2007")
    year = tmp_path / "VOC2007"
    (year / "images").rename(year / "JPEGImages")
    (year / "annotations").rename(year / "Annotations")
    (year / "ImageSets" / "Main").mkdir(parents=True)
    stems = [name.removesuffix(".jpg") for name in truth.sizes]
    stems = [stem for stem in stems if " " not in stem]
    (year / "ImageSets" / "Main" / "train.txt").write_text("\n".join(stems[:2]))
    (year / "ImageSets" / "Main" / "val.txt").write_text("\n".join(f"{stem}  1" for stem in stems[2:]))
    found, checked = _read(tmp_path)
    assert found == "voc" and [each.split.name for each in checked] == ["train", "val"]
    assert [len(each.dataset.images) for each in checked] == [2, 1]
    assert any(
        "images that no list in ImageSets/Main names, not used: 2" in line for line in checked[0].warnings
    )


def test_train_and_test_folders_become_train_and_val(writers, tmp_path):
    for split, seed in (("train", 1), ("test", 2)):
        writers.labelme(writers.Truth(random.Random(seed)), tmp_path / split)
    _, checked = _read(tmp_path)
    assert sorted(each.split.name for each in checked) == ["train", "val"]
    assert all(len(each.dataset.images) == 4 and not each.faults for each in checked)


def test_yolo_as_roboflow_and_labelimg_write_it(writers, tmp_path):
    truth = writers.Truth(random.Random(3))
    writers.yolo(truth, tmp_path / "a")
    # data.yaml of Roboflow points one folder too high.
    for kind in ("images", "labels"):
        (tmp_path / "a" / "train").mkdir(exist_ok=True)
        (tmp_path / "a" / kind / "train").rename(tmp_path / "a" / "train" / kind)
        (tmp_path / "a" / kind).rmdir()
    names = json.dumps(writers.NAMES)
    (tmp_path / "a" / "data.yaml").write_text(
        f"train: ../train/images\nval: ../valid/images\nnc: 4\nnames: {names}"
    )
    found, (checked,) = _read(tmp_path / "a")
    assert found == "yolo" and checked.split.name == "train" and not checked.faults
    _require_equal(_boxes(checked), [(f, c, *b) for f, c, b in truth.boxes], 0.1)
    # labelImg puts everything in one folder.
    flat = tmp_path / "b"
    flat.mkdir()
    for path in [
        *(tmp_path / "a" / "train" / "images").iterdir(),
        *(tmp_path / "a" / "train" / "labels").iterdir(),
    ]:
        shutil.copy(path, flat / path.name)
    (flat / "classes.txt").write_text("\n".join(writers.NAMES) + "\n", encoding="utf-8")
    found, (checked,) = _read(flat)
    assert found == "yolo" and not checked.faults
    _require_equal(_boxes(checked), [(f, c, *b) for f, c, b in truth.boxes], 0.1)


# What is done to a folder, and the fault that must be named.
YOLO_FAULTS = {
    "0 0.5 0.5 0.2": "should be 'class x y width height', not 4 numbers",
    "0 0.5 0.5 0.2 x": "should contain only numbers",
    "0 0.5 0.5 0.2 nan": "not finite",
    "9 0.5 0.5 0.2 0.2": "class 9 has no name; 4 names are given, starting at 0",
    "-1 0.5 0.5 0.2 0.2": "class should be a whole number, not -1",
    "0 50 50 20 20": "should be fractions of the image (0 to 1)",
    "0 0.5 0.5 0.2 0.2 0.9": "not 6 numbers",
}


@pytest.mark.parametrize("line", YOLO_FAULTS)
def test_faults_of_yolo_name_file_and_line(line, writers, tmp_path):
    writers.yolo(writers.Truth(random.Random(4)), tmp_path)
    (path, *_) = sorted((tmp_path / "labels" / "train").iterdir())
    path.write_text(f"{line}\n{path.read_text()}")
    _, (checked,) = _read(tmp_path)
    (fault,) = checked.faults
    assert (fault.file, fault.entry) == (str(path), "line 1") and YOLO_FAULTS[line] in fault.reason


def test_entities_of_xml_are_refused(writers, tmp_path):
    writers.voc(writers.Truth(random.Random(4)), tmp_path)
    paths = sorted((tmp_path / "annotations").iterdir())
    laughs = '<!DOCTYPE l [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;&a;">]>'
    outside = '<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    for path, head in zip(paths, (laughs, outside), strict=False):
        path.write_text(head + path.read_text().replace("<folder>images", "<folder>&a;"))
    _, (checked,) = _read(tmp_path)
    assert [fault.file for fault in checked.faults] == [str(path) for path in paths[:2]]
    assert all(
        "declares entities or external files, which are not allowed" in f.reason for f in checked.faults
    )


def test_nothing_leads_out_of_the_folder(writers, tmp_path):
    secret = tmp_path / "secret.jpg"
    Image.new("RGB", (40, 40)).save(secret)
    for name in ("voc", "labelme", "cvat", "label_studio", "roboflow"):
        folder = tmp_path / name
        truth = writers.Truth(random.Random(6), images=1)
        writers.WRITERS[name](truth, folder)
        (image,) = truth.sizes
        for path in folder.rglob("*"):
            if path.suffix in (".xml", ".json"):
                text = path.read_text(encoding="utf-8").replace(image.replace(" ", "%20"), image)
                path.write_text(text.replace(image, "../secret.jpg"), encoding="utf-8")
            if path.suffix == ".jpg":
                path.unlink()
        _, splits = formats.read(str(folder), None, name)
        for split in splits:
            for entry in split.content["images"]:
                assert "secret" in entry["file_name"]
        (checked,) = check.check(splits)
        assert any("leaves the folder" in f.reason or "is missing" in f.reason for f in checked.faults), name


def test_shapes_that_are_no_boxes_are_counted(tmp_path):
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    shapes = [
        {"label": "x", "shape_type": "polygon", "points": [[10, 10], [30, 20], [20, 50]]},
        {"label": "x", "shape_type": "circle", "points": [[50, 40], [50, 50]]},
        {"label": "x", "shape_type": "line", "points": [[50, 40], [50, 50]]},
    ]
    value = {"shapes": shapes, "imagePath": "..\\photos\\a.png", "imageWidth": 100, "imageHeight": 80}
    (tmp_path / "a.json").write_text(json.dumps(value))
    found, (checked,) = _read(tmp_path)
    assert found == "labelme" and not checked.faults
    assert [box.bbox for box in checked.dataset.annotations] == [(10, 10, 20, 40), (40, 30, 20, 20)]
    assert {
        "shapes of type 'line', not used: 1",
        "shapes of type 'polygon'; replaced by the boxes around them: 1",
    } <= set(checked.warnings)


def test_frames_of_a_video_are_one_group(tmp_path):
    for frame in range(6):
        pixels = np.random.default_rng(frame).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"frame_{frame:06d}.png")
    boxes = "".join(
        f'<box frame="{f}" outside="{int(f == 5)}" xtl="5" ytl="5" xbr="{20 + f}" ybr="30"/>'
        for f in range(6)
    )
    size = "<meta><task><original_size><width>60</width><height>40</height></original_size></task></meta>"
    (tmp_path / "annotations.xml").write_text(
        f'<annotations>{size}<track id="0" label="cat">{boxes}</track></annotations>'
    )
    found, (checked,) = _read(tmp_path)
    assert found == "cvat" and not checked.faults and len(checked.dataset.images) == 5
    assert len({image.group for image in checked.dataset.images}) == 1
    assert "images without annotations, not used: 1 ('frame_000005.png')" in checked.warnings


def test_a_rotated_box_of_label_studio_turns_about_its_corner(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    value = {"x": 50, "y": 20, "width": 20, "height": 10, "rotation": 90, "rectanglelabels": ["x"]}
    region = {"type": "rectanglelabels", "original_width": 200, "original_height": 100, "value": value}
    tasks = [{"id": 7, "data": {"image": "/data/upload/a.png"}, "annotations": [{"result": [region]}]}]
    (tmp_path / "e.json").write_text(json.dumps(tasks))
    _, (checked,) = _read(tmp_path)
    # 40x10 pixels with the corner at (100, 20), a quarter turn to the right: left of it and below.
    assert checked.dataset.annotations[0].bbox == pytest.approx((90, 20, 10, 40))
    assert "rotated boxes; replaced by the upright boxes around them: 1" in checked.warnings


def test_a_wrong_format_says_what_is_wanted(tmp_path):
    with pytest.raises(InputError, match="--format=voc: .* expected: XML files with <annotation>"):
        formats.read(str(tmp_path), None, "voc")
    with pytest.raises(InputError, match="no annotations in another known format.*yolo .data.yaml") as error:
        formats.read(str(tmp_path))
    assert str(error.value).count("coco (") == 1


def test_groups_and_near_duplicates_stay_on_one_side(tmp_path):
    from mobiledets_tf.data import coco, train_val_split

    rng = np.random.default_rng(0)
    (tmp_path / "train").mkdir()
    entries = []
    for scene in range(10):
        small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8))
        for shot in range(2):  # the same scene at two qualities
            entries.append(
                {"id": len(entries) + 1, "file_name": f"{scene}_{shot}.jpg", "width": 96, "height": 96}
            )
            large = small.resize((96, 96), Image.Resampling.BICUBIC)
            large.save(tmp_path / "train" / entries[-1]["file_name"], quality=90 - 30 * shot)
    boxes = [{"id": e["id"], "image_id": e["id"], "category_id": 1, "bbox": [1, 1, 9, 9]} for e in entries]
    value = {"images": entries, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "instances_train.json").write_text(json.dumps(value))
    (checked,) = check.check(coco.find_splits(tmp_path))
    train, val = train_val_split.divide(checked, 0.3)
    sides = [{image.file_name.split("_")[0] for image in part.dataset.images} for part in (train, val)]
    assert not sides[0] & sides[1] and sorted(map(len, sides)) == [3, 7]
