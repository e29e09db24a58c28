import errno
import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from mobiledets_tf.cli import data as command
from mobiledets_tf.compat import enable_object_detection, tf
from mobiledets_tf.data import check, coco, convert, image_files, records
from mobiledets_tf.data.coco_metrics import coco_metrics
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.version import WRITTEN_BY

KEYS = {
    "image/encoded",
    "image/format",
    "image/height",
    "image/width",
    "image/filename",
    "image/source_id",
    "image/key/sha256",
    "image/object/bbox/xmin",
    "image/object/bbox/xmax",
    "image/object/bbox/ymin",
    "image/object/bbox/ymax",
    "image/object/class/text",
    "image/object/class/label",
    "image/object/is_crowd",
    "image/object/area",
}


def _convert(data, output_dir, num_shards=None):
    return convert.convert(check.check(coco.find_splits(data)), output_dir, num_shards)


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _perfect(truth):
    """The ground truth as detections (crowds are not to be found)."""
    return [
        {key: box[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for box in truth["annotations"]
        if not box["iscrowd"]
    ]


def test_examples_have_exactly_the_keys_of_the_api(data, edit, tmp_path):
    edit(lambda value: value["annotations"][0].update(iscrowd=1, bbox=[12, 24, 48, 36], area=1000.5))
    _convert(data, tmp_path / "out", 2)
    files = records.resolve(tmp_path / "out", "train")
    (raw, *rest) = [raw for file in files for raw in tf.data.TFRecordDataset(file).as_numpy_iterator()]
    assert len(rest) == 5
    feature = tf.train.Example.FromString(raw).features.feature
    assert set(feature) == KEYS
    jpeg = (data / "train" / "000000.jpg").read_bytes()
    assert feature["image/encoded"].bytes_list.value[0] == jpeg
    assert feature["image/key/sha256"].bytes_list.value[0].decode() == hashlib.sha256(jpeg).hexdigest()
    assert feature["image/source_id"].bytes_list.value[0] == b"1"
    # By hand: the image has 96x96 pixels.
    sides = ("xmin", "ymin", "xmax", "ymax")
    box = [feature[f"image/object/bbox/{side}"].float_list.value[0] for side in sides]
    assert box == [0.125, 0.25, 0.625, 0.625]
    assert feature["image/object/is_crowd"].int64_list.value[0] == 1
    assert feature["image/object/area"].float_list.value[0] == 1000.5


def test_the_decoder_of_the_api_reads_them(data, tmp_path):
    enable_object_detection()
    from object_detection.core import standard_fields
    from object_detection.data_decoders import tf_example_decoder

    _convert(data, tmp_path / "out")
    decoder = tf_example_decoder.TfExampleDecoder(
        label_map_proto_file=str(tmp_path / "out" / "label_map.pbtxt")
    )
    fields = standard_fields.InputDataFields
    truth = coco.load(coco.find_splits(data)[0])[0].by_image()
    seen = 0
    for raw in tf.data.TFRecordDataset(records.resolve(tmp_path / "out", "train")):
        decoded = decoder.decode(raw)
        boxes = truth[int(decoded[fields.source_id].numpy())]
        assert decoded[fields.image].shape == (96, 96, 3)
        assert decoded[fields.groundtruth_classes].numpy().tolist() == [box.category_id for box in boxes]
        expected = [(y, x, y + h, x + w) for x, y, w, h in (box.bbox for box in boxes)]
        np.testing.assert_allclose(
            decoded[fields.groundtruth_boxes].numpy() * 96, np.reshape(expected, (-1, 4)), atol=1e-4
        )
        seen += 1
    assert seen == 6


def test_ids_with_gaps_become_contiguous_in_their_order(data, tmp_path):
    for split in ("train", "val"):
        path = data / f"instances_{split}.json"
        value = json.loads(path.read_text())
        value["categories"] = [
            {"id": 100 - 7 * category["id"], "name": category["name"]} for category in value["categories"]
        ]
        for annotation in value["annotations"]:
            annotation["category_id"] = 100 - 7 * annotation["category_id"]
        path.write_text(json.dumps(value))
    dataset = _convert(data, tmp_path / "out")
    names = records.read_label_map(tmp_path / "out" / "label_map.pbtxt")
    assert list(names) == list(range(1, 11))
    assert (names[1], names[10]) == ("nine", "zero")  # the order of the ids, not of the file
    assert dataset["categories"][0] == {"id": 1, "name": "nine", "coco_id": 30}
    for example in records.read_examples(records.resolve(tmp_path / "out", "train")):
        assert [names[class_id] for class_id in example.classes] == list(example.names)


@pytest.mark.parametrize("num_shards", [None, 1, 4, 50])
def test_shards_hold_every_image_once(num_shards, data, tmp_path):
    dataset = _convert(data, tmp_path / "out", num_shards)
    files = records.resolve(tmp_path / "out", "train")
    assert len(files) == min(num_shards or 1, 6)
    assert [file.rpartition("/")[2] for file in files] == dataset["splits"]["train"]["shards"]
    assert sorted(int(example.image_id) for example in records.read_examples(files)) == [1, 2, 3, 4, 5, 6]
    written = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert written == {"written_by": WRITTEN_BY} | dataset


def test_other_pictures_become_rgb_jpegs(data, tmp_path):
    folder = data / "train"
    image = Image.open(folder / "000000.jpg")
    image.save(folder / "000000.jpg", "PNG")
    image.convert("L").save(folder / "000001.jpg", "JPEG")
    image.convert("RGBA").save(folder / "000002.jpg", "PNG")
    image.quantize(256).save(folder / "000003.jpg", "PNG")
    image.convert("CMYK").save(folder / "000004.jpg", "JPEG")
    image.convert("RGB").save(folder / "000005.jpg", "WEBP", lossless=True)
    _convert(data, tmp_path / "out")
    for example in records.read_examples(records.resolve(tmp_path / "out", "train")):
        decoded = Image.open(io.BytesIO(example.encoded))
        assert (decoded.format, decoded.mode, decoded.size) == ("JPEG", "RGB", (96, 96))
        if example.image_id != "2":  # the grey one
            difference = np.asarray(decoded, float) - np.asarray(image, float)
            assert np.abs(difference).mean() < 8
        assert tf.io.decode_jpeg(example.encoded, channels=3).shape == (96, 96, 3)


def _sorted_boxes(truth):
    return sorted(
        (box["image_id"], box["category_id"], *(round(side, 2) for side in box["bbox"]))
        for box in truth["annotations"]
    )


def test_photos_score_1_against_themselves(shared, tmp_path):
    dataset = _convert(shared / "data" / "cards_tiny", tmp_path / "out")
    for split in ("train", "val"):
        truth = records.ground_truth(records.resolve(tmp_path / "out", split))
        original = json.loads((shared / "data" / "cards_tiny" / f"instances_{split}.json").read_text())
        assert len(truth["images"]) == len(original["images"]) == dataset["splits"][split]["images"]
        for ours, theirs in zip(_sorted_boxes(truth), _sorted_boxes(original), strict=True):
            assert ours == pytest.approx(theirs, abs=2e-2)  # of pixels
        assert coco_metrics(truth, _perfect(truth))["AP"] == pytest.approx(1.0, abs=1e-9)
        # Detections in the ids of the original file, on the original boxes: the same ground truth.
        assert coco_metrics(original, _perfect(truth))["AP"] == pytest.approx(1.0, abs=1e-9)


def test_faults_stop_a_conversion(data, edit, tmp_path, capsys):
    edit(lambda value: value["annotations"][0].update(category_id=99))
    with pytest.raises(CheckFailed, match="1 faults"):
        _convert(data, tmp_path / "out")
    arguments = ["mobiledets-data", "--mode=convert", f"--images={data}", f"--output_dir={tmp_path / 'out'}"]
    assert command.run(arguments) == 1
    assert "annotation 1" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def _write_only(failing_path, error):
    """A stand-in for TFRecordWriter that fails in the middle of a shard."""
    real = tf.io.TFRecordWriter

    class Writer(real):
        def write(self, record):
            if failing_path in str(self.path) and self.count:
                raise error
            self.count += 1
            super().write(record)

        def __init__(self, path):
            super().__init__(path)
            self.path, self.count = path, 0

    return Writer


FULL = tf.errors.ResourceExhaustedError(None, None, "No space left on device")


@pytest.mark.parametrize(("error", "code"), [(FULL, 2), (KeyboardInterrupt(), 130)])
@pytest.mark.parametrize("exists", [False, True])
def test_nothing_half_written_is_left(error, code, exists, data, tmp_path, monkeypatch, capsys):
    output_dir = tmp_path / "out"
    if exists:
        _convert(data, output_dir, 3)
    before = _files(output_dir) if exists else None
    monkeypatch.setattr(tf.io, "TFRecordWriter", _write_only("val-", error))
    arguments = ["mobiledets-data", "--mode=convert", f"--images={data}", f"--output_dir={output_dir}"]
    assert command.run(arguments) == code
    assert ("No space left" in capsys.readouterr().err) == (code == 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == (["data", "out"] if exists else ["data"])
    assert (_files(output_dir) if exists else None) == before


@pytest.mark.parametrize("failing", range(1, 12, 3))
def test_a_replacement_that_fails_is_taken_back(failing, data, tmp_path, monkeypatch):
    """Renames fail at any point (Ctrl-C, disk): the old shards are still there, all of them."""
    _convert(data, tmp_path / "out", 3)
    before = _files(tmp_path / "out")
    rename, calls = convert.os.rename, []

    def fail_once(source, target):
        calls.append(source)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr("os.rename", fail_once)
    with pytest.raises(OSError, match="No space"):
        _convert(data, tmp_path / "out", 2)
    assert _files(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def _convert_split(data, output_dir, split, num_shards=None):
    splits = coco.find_splits(data / split, data / f"instances_{split}.json")
    return convert.convert(check.check(splits), output_dir, num_shards)


def test_one_split_replaces_itself_and_keeps_the_others(data, tmp_path):
    output_dir = tmp_path / "out"
    _convert_split(data, output_dir, "train", 3)
    dataset = _convert_split(data, output_dir, "val")
    assert list(dataset["splits"]) == ["train", "val"]
    (output_dir / "notes.txt").write_text("mine")
    _convert_split(data, output_dir, "train", 2)
    assert sorted(path.name for path in output_dir.iterdir()) == [
        "dataset.json",
        "label_map.pbtxt",
        "notes.txt",
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
        "val-00000-of-00001.tfrecord",
    ]
    assert len(json.loads((output_dir / "dataset.json").read_text())["splits"]["train"]["shards"]) == 2


def test_another_label_map_is_refused_with_the_difference(data, edit, tmp_path):
    output_dir = tmp_path / "out"
    _convert_split(data, output_dir, "val")
    before = _files(output_dir)
    edit(lambda value: value["categories"][4].update(name="V"))
    with pytest.raises(InputError, match=r"of val.*\(5, 'four'\).*\(5, 'V'\)"):
        _convert_split(data, output_dir, "train")
    assert _files(output_dir) == before


def test_only_images_that_changed_since_the_check_are_decoded_again(data, tmp_path, monkeypatch):
    """Decoding takes longest; equal bytes were decoded by the check."""
    checked = check.check(coco.find_splits(data))
    decoded, reads = [], image_files._model_reads
    monkeypatch.setattr(image_files, "_model_reads", lambda jpeg: decoded.append(jpeg) or reads(jpeg))
    convert.convert(checked, tmp_path / "same")
    assert not decoded
    image = checked[0].dataset.images[0]
    path = checked[0].split.images / image.file_name
    whole = path.read_bytes()
    path.write_bytes(whole + b"more")  # behind the end of the picture
    convert.convert(checked, tmp_path / "longer")
    assert decoded == [whole + b"more"]
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"image {image.id} changed after the check"):
        convert.convert(checked, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
