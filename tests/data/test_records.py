import json

import pytest

from mobiledets_tf.compat import enable_object_detection, tf
from mobiledets_tf.data import check, coco, convert, records
from mobiledets_tf.errors import InputError


@pytest.fixture(scope="module")
def converted(pristine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "records"
    convert.convert(check.check(coco.find_splits(pristine)), folder, 2)
    return folder


def test_a_folder_and_a_pattern_resolve_to_the_same_files(converted):
    files = records.resolve(converted, "train")
    assert [file.rpartition("/")[2] for file in files] == [
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]
    assert records.resolve(f"{converted}/train-*.tfrecord", "val") == files
    assert records.resolve(f"{converted}/train-00001*", "train") == files[1:]
    assert records.label_map_path(files) == f"{converted}/label_map.pbtxt"


def test_what_is_not_there_is_said(converted, tmp_path):
    with pytest.raises(InputError, match="no TFRecord files match '.*/test-\\*.tfrecord'"):
        records.resolve(converted, "test")
    with pytest.raises(InputError, match="no TFRecord files match"):
        records.resolve("/nowhere/x-*.tfrecord", "train")
    (tmp_path / "train-00000-of-00002.tfrecord").touch()
    with pytest.raises(InputError, match="missing or come from two conversions"):
        records.resolve(tmp_path, "train")
    with pytest.raises(InputError, match="no label_map.pbtxt beside"):
        records.label_map_path([f"{tmp_path}/train-00000-of-00002.tfrecord"])
    with pytest.raises(InputError, match="several folders"):
        records.label_map_path(["/a/x", "/b/y"])


def test_ground_truth_is_in_pixels_and_in_order(converted, pristine):
    truth = records.ground_truth(records.resolve(converted, "val"))
    dataset, faults = coco.load(coco.find_splits(pristine)[1])
    assert not faults
    assert {image["id"] for image in truth["images"]} == {image.id for image in dataset.images}
    assert [box["id"] for box in truth["annotations"]] == list(range(1, len(dataset.annotations) + 1))
    ours = sorted((box["image_id"], box["category_id"], *box["bbox"]) for box in truth["annotations"])
    theirs = sorted((box.image_id, box.category_id, *box.bbox) for box in dataset.annotations)
    for left, right in zip(ours, theirs, strict=True):
        assert left == pytest.approx(right, abs=1e-4)


def test_results_get_the_ids_of_the_annotation_file(tmp_path):
    files, names = [str(tmp_path / "val-00000-of-00001.tfrecord")], {1: "cat", 2: "big  dog", 3: "cow"}
    assert records.coco_category_ids(files, names) == {1: 1, 2: 2, 3: 3}
    categories = [
        {"id": 1, "name": "cat", "coco_id": 17},
        {"id": 2, "name": "big dog", "coco_id": 18},
        {"id": 3, "name": "horse", "coco_id": 19},
        {"id": [3], "name": "cow", "coco_id": 20},
        "damaged",
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"categories": categories}))
    # A class of another name keeps its own number.
    assert records.coco_category_ids(files, names) == {1: 17, 2: 18, 3: 3}


def _write(path, *examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)
    return [str(path)]


def test_damaged_and_foreign_files_are_refused(converted, tmp_path):
    (file, *_) = records.resolve(converted, "train")
    data = bytearray(open(file, "rb").read())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged.tfrecord"
    damaged.write_bytes(data)
    with pytest.raises(InputError, match="damaged.tfrecord' cannot be read"):
        list(records.read_examples([str(damaged)]))
    with pytest.raises(InputError, match="cannot be read"):
        list(records.read_examples([str(tmp_path / "none")]))
    with pytest.raises(InputError, match="image/height should have one value, not 0"):
        list(records.read_examples(_write(tmp_path / "foreign", tf.train.Example().SerializeToString())))
    with pytest.raises(InputError, match="contains no detection examples"):
        list(records.read_examples(_write(tmp_path / "bytes", b"\xff" * 40)))


def test_the_same_image_twice_is_refused(converted):
    files = records.resolve(converted, "train")
    with pytest.raises(InputError, match="occurs twice"):
        records.ground_truth([*files, files[0]])


def test_label_maps_are_those_of_the_api(tmp_path):
    enable_object_detection()
    from object_detection.utils import label_map_util

    names = {1: "plain", 2: 'with "quotes" and \\', 3: "grüße 漢字", 7: "a gap"}
    path = tmp_path / "label_map.pbtxt"
    records.write_label_map(path, names)
    assert records.read_label_map(path) == names
    assert label_map_util.get_label_map_dict(str(path)) == {name: key for key, name in names.items()}


def test_foreign_label_maps_are_read(tmp_path):
    path = tmp_path / "label_map.pbtxt"
    path.write_text(
        '# COCO as the API ships it\nitem { name: "/m/01g317" id: 2 display_name: "person" }\n'
        "item { name: '/m/0199g', id: 1, keypoints { id: 3 label: \"x\" } }"
    )
    assert records.read_label_map(path) == {1: "/m/0199g", 2: "person"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "item {",
        "hello",
        'item { name: "a" }',
        'item { id: 1 name: "a" } item { id: 1 name: "b" }',
        'item { id: "x" }',
        "\x00",
    ],
)
def test_what_is_no_label_map_is_refused(text, tmp_path):
    path = tmp_path / "label_map.pbtxt"
    path.write_text(text)
    with pytest.raises(InputError, match="label_map.pbtxt"):
        records.read_label_map(path)
