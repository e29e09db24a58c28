import io
import json
import os
import random

import pytest
from PIL import Image

from mobiledets_tf.cli import data as command
from mobiledets_tf.data import check, coco, convert
from mobiledets_tf.errors import InputError


def _faults(folder):
    return [fault for each in check.check(coco.find_splits(folder)) for fault in each.faults]


def _set(key, index, **values):
    return lambda value: value[key][index].update(values)


def _drop(key, index, field):
    return lambda value: value[key][index].pop(field)


# What is done to instances_train.json, the entry that must be named, a part of the reason.
JSON_DAMAGE = {
    "image without id": (_drop("images", 0, "id"), "images[0]", "'id' is missing"),
    "image without width": (_drop("images", 1, "width"), "image 2", "'width' is missing"),
    "text as width": (_set("images", 1, width="96"), "image 2", "whole number"),
    "width of true": (_set("images", 1, width=True), "image 2", "whole number"),
    "no width": (_set("images", 1, width=0), "image 2", "from 1 to"),
    "negative id": (_set("images", 1, id=-1), "images[1]", "from 0 to"),
    "other size": (_set("images", 0, width=97), "image 1", "is 96x96, but the annotations say 97x96"),
    "image id twice": (_set("images", 1, id=1), "image 1", "'id' 1 was already used"),
    "file twice": (_set("images", 1, file_name="./000000.jpg"), "image 2", "was already used"),
    "missing file": (_set("images", 1, file_name="none.jpg"), "image 2", "is missing"),
    "folder as file": (_set("images", 1, file_name="."), "image 2", "is not a file"),
    "absolute path": (_set("images", 1, file_name="/etc/passwd"), "image 2", "leaves the folder"),
    "path upwards": (_set("images", 1, file_name="a/../../val/000000.jpg"), "image 2", "leaves the folder"),
    "NUL in path": (_set("images", 1, file_name="a\0b"), "image 2", "cannot be used"),
    "long path": (_set("images", 1, file_name="a" * 5000), "image 2", "cannot be used"),
    "lone surrogate": (_set("images", 1, file_name="\ud800"), "image 2", "not valid Unicode"),
    "unknown image": (_set("annotations", 0, image_id=999), "annotation 1", "'image_id' 999 is unknown"),
    "unknown class": (_set("annotations", 0, category_id=99), "annotation 1", "'category_id' 99 is unknown"),
    "annotation id twice": (_set("annotations", 1, id=1), "annotation 1", "was already used"),
    "no box": (_drop("annotations", 0, "bbox"), "annotation 1", "'bbox' is missing"),
    "three numbers": (_set("annotations", 0, bbox=[1, 2, 3]), "annotation 1", "four numbers"),
    "text in box": (_set("annotations", 0, bbox=[1, 2, "3", 4]), "annotation 1", "only numbers"),
    "NaN": (_set("annotations", 0, bbox=[1, float("nan"), 3, 4]), "annotation 1", "not a finite"),
    "infinity": (_set("annotations", 0, bbox=[1, 2, float("inf"), 4]), "annotation 1", "not a finite"),
    "huge whole number": (_set("annotations", 0, bbox=[10**400, 2, 3, 4]), "annotation 1", "not a finite"),
    "flat box": (_set("annotations", 0, bbox=[1, 2, 0, 4]), "annotation 1", "no area"),
    "negative side": (_set("annotations", 0, bbox=[10, 20, 5, -4]), "annotation 1", "no area"),
    "box to the right": (_set("annotations", 0, bbox=[60, 2, 38, 4]), "annotation 1", "is outside image"),
    "box to the left": (_set("annotations", 0, bbox=[-2, 2, 30, 4]), "annotation 1", "is outside image"),
    "box in the tolerance only": (_set("annotations", 0, bbox=[96, 2, 1, 4]), "annotation 1", "no area in"),
    "negative area": (_set("annotations", 0, area=-1), "annotation 1", "'area'"),
    "area of text": (_set("annotations", 0, area="1"), "annotation 1", "'area'"),
    "crowd of 2": (_set("annotations", 0, iscrowd=2), "annotation 1", "'iscrowd'"),
    "class without name": (_drop("categories", 9, "name"), "category 10", "'name' is missing"),
    "class name twice": (_set("categories", 9, name="zero"), "category 10", "'zero' was already used"),
    "name but for spaces": (
        _set("categories", 9, name=" zero"),
        "category 10",
        "' zero' was already used as 'zero'",
    ),
    "class id twice": (_set("categories", 9, id=1), "category 1", "was already used"),
    "line break in class name": (_set("categories", 9, name="a\nb"), "category 10", "control characters"),
    "entry of another type": (lambda value: value["images"].append(None), "images[6]", "object, not null"),
    "no list": (lambda value: value.update(images={}), "images", "should be a list, not an object"),
    "no key": (lambda value: value.pop("categories"), "categories", "key is missing"),
}


@pytest.mark.parametrize("name", JSON_DAMAGE)
def test_damage_in_the_annotations_is_named(name, data, edit):
    change, entry, reason = JSON_DAMAGE[name]
    edit(change)
    found = [fault for fault in _faults(data) if fault.entry == entry and reason in fault.reason]
    assert len(found) == 1, [str(fault) for fault in _faults(data)]
    assert found[0].file == str(data / "instances_train.json")


def _link_outside(path):
    outside = path.parent.parent / "outside.jpg"
    path.rename(outside)
    path.symlink_to(outside)


def _link_loop(path):
    path.unlink()
    path.symlink_to(path)


FILE_DAMAGE = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-500]), "cannot be decoded"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable image"),
    "text": (lambda path: path.write_text("hello"), "not a readable image"),
    "another format": (lambda path: Image.new("RGB", (96, 96)).save(path, "GIF"), "not a readable image"),
    "16 bit": (lambda path: Image.new("I;16", (96, 96)).save(path, "PNG"), "pixels of type I;16"),
    "removed": (os.unlink, "is missing"),
    "link out of the folder": (_link_outside, "leaves the folder"),
    "link to itself": (_link_loop, "cannot be used"),
    "pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is not a file"),
}


@pytest.mark.parametrize("name", FILE_DAMAGE)
def test_damaged_files_are_named(name, data):
    damage, reason = FILE_DAMAGE[name]
    damage(data / "train" / "000003.jpg")
    (fault,) = _faults(data)
    assert (fault.entry, "000003.jpg" in fault.reason) == ("image 4", True)
    assert reason in fault.reason


def test_what_is_normal_is_no_fault(data, edit):
    def change(value):
        value["images"][2]["id"] = 500  # a gap; its boxes go
        value["annotations"] = [a for a in value["annotations"] if a["image_id"] != 3]
        value["annotations"][0]["iscrowd"] = 1
        value["annotations"][1].pop("iscrowd")
        value["annotations"][1].pop("area")
        value["annotations"][2]["bbox"] = [-0.9, 0, 97.5, 96.9]  # rounding of an annotation tool

    edit(change)
    train, _ = check.check(coco.find_splits(data))
    assert train.faults == ()
    boxes = train.dataset.annotations
    assert boxes[0].is_crowd and not boxes[1].is_crowd
    assert boxes[1].area == pytest.approx(boxes[1].bbox[2] * boxes[1].bbox[3])
    assert boxes[2].bbox == (0.0, 0.0, 96.0, 96.0)
    assert train.dataset.by_image()[500] == []


def test_boxes_of_a_faulty_image_are_not_faults_of_their_own(data, edit):
    edit(_set("images", 0, width=None))
    assert [fault.entry for fault in _faults(data)] == ["image 1"]


def test_splits_have_to_share_their_classes(data, edit):
    edit(_set("categories", 4, name="V"))
    reasons = sorted(fault.reason for fault in _faults(data))
    assert reasons == [
        "'V' is in instances_train.json but missing here",
        "'four' is not in instances_train.json",
    ]


def test_photos_are_sound(shared):
    checked = check.check(coco.find_splits(shared / "data" / "cards_tiny"))
    assert [(each.split.name, len(each.dataset.images), each.faults) for each in checked] == [
        ("train", 32, ()),
        ("val", 16, ()),
    ]


def _run(*arguments):
    return command.run(["mobiledets-data", *arguments])


def test_the_command_prints_every_fault_and_exits_with_1(data, edit, capsys):
    edit(_set("annotations", 0, category_id=99))
    (data / "val" / "000001.jpg").unlink()
    assert _run("--mode=check", f"--images={data}") == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert "instances_train.json: annotation 1: 'category_id' 99 is unknown" in lines[0]
    assert lines[1].endswith("instances_val.json: image 8: file '000001.jpg' is missing")
    assert lines[2].startswith("train: 6 images") and lines[2].endswith("1 faults")
    assert "2 faults in" in err.splitlines()[-1]


def test_one_split_is_named_by_its_two_paths(data, capsys):
    (data / "instances_val.json").write_text("{")  # not looked at
    arguments = (f"--images={data}/train", f"--annotations={data}/instances_train.json")
    assert _run("--mode=check", *arguments) == 0
    assert capsys.readouterr().out.startswith("train: 6 images")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ('{"images": [', "not valid JSON"),
        ("[1, 2]", "should be a JSON object, not a list"),
        ("[" * 100000, "nested too deeply"),
        ('{"images": [{"id": ' + "9" * 5000 + "}]}", "a number with too many digits"),
        ('{"images": [], "annotations": [], "categories": []}', "empty data set: it has no images"),
        ("\ufeff{}", "not valid JSON"),
    ],
)
def test_no_data_set_at_all_exits_with_2(text, reason, data, capsys):
    (data / "instances_train.json").write_text(text)
    assert _run("--mode=check", f"--images={data}") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert reason in line and "instances_train.json" in line


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--mode=check"], "requires --images"),
        (["--mode=chek", "--images=x"], "did you mean 'check'?"),
        (["--mode=check", "--images=/nowhere"], "is not a folder"),
        (["--mode=check", "--images=/proc/self"], "contains no instances_*.json"),
        (["--mode=check", "--images=/tmp", "--annotations=/tmp/a.json"], "should be named instances_SPLIT"),
        (["--mode=check", "--images=/tmp", "--annotations=/tmp/instances_none.json"], "does not exist"),
        (["--mode=convert", "--images=/tmp"], "requires --output_dir"),
        (["--mode=sample", "--output_dir=/tmp/x", "--num_train=0"], "num_train"),
    ],
)
def test_wrong_flags_exit_with_2(arguments, reason, capsys):
    assert _run(*arguments) == 2
    assert reason in capsys.readouterr().err


HOSTILE = (
    None,
    True,
    0,
    -1,
    1,
    0.5,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    10**30,
    10**400,
    "",
    "x",
    "\ud800",
    "\0",
    "../..",
    "/",
    [],
    {},
    [[]],
    [None] * 4,
    [0, 0, 1e308, 1e308],
    {"id": 1},
    "x" * 5000,
)


def _mutate(rng, value):
    """Replaces, removes or repeats one part of a JSON value, anywhere in it."""
    parent, key = None, None
    while isinstance(value, (dict, list)) and value and (parent is None or rng.random() < 0.85):
        parent, key = value, rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        value = value[key]
    action = rng.random()
    if action < 0.7:
        parent[key] = rng.choice(HOSTILE)
    elif action < 0.9:
        del parent[key]
    elif isinstance(parent, list):
        parent.append(value)


def test_hostile_json_never_breaks_the_check(pristine, tmp_path):
    """One to three random mutations a file: faults, an InputError, or nothing; never another exception."""
    original = (pristine / "instances_train.json").read_text()
    path = tmp_path / "instances_train.json"
    rng = random.Random(0)
    outcomes = {"sound": 0, "faults": 0, "refused": 0}
    for _ in range(500):
        value = json.loads(original)
        for _ in range(rng.randint(1, 3)):
            if value:
                _mutate(rng, value)
        path.write_text(json.dumps(value))
        try:
            (checked,) = check.check([coco.Split("train", pristine / "train", path)])
        except InputError as error:
            outcomes["refused"] += 1
            assert "instances_train.json" in str(error)
            continue
        for fault in checked.faults:
            assert len(str(fault)) < 1000 and "\n" not in str(fault)
            str(fault).encode()
        outcomes["faults" if checked.faults else "sound"] += 1
        if not checked.faults:  # what passes the check can be converted
            convert.convert([checked], tmp_path / "records")
    assert outcomes["sound"] > 50 and outcomes["faults"] > 300, outcomes


def test_damaged_jpegs_never_break_the_check(pristine, tmp_path):
    """Whatever bytes are in a file, decoding ends in a picture of the right size or a reason."""
    from mobiledets_tf.data import image_files

    original = (pristine / "train" / "000000.jpg").read_bytes()
    png = io.BytesIO()
    Image.open(io.BytesIO(original)).save(png, "PNG")
    rng = random.Random(1)
    refused = 0
    for index in range(600):
        data = bytearray(original if index % 2 else png.getvalue())
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            cut = bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
            assert image_files.decode(cut, (96, 96))
        except image_files.PictureError:
            refused += 1
    assert 200 < refused < 600
