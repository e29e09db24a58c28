"""The quickstart on data as other tools leave them: from a folder that is not COCO to an int8 file."""

import json
from collections import Counter

import pytest

from mobiledets_tf.cli import quickstart as command
from mobiledets_tf.compat import tf


def _voc(folder):
    """(images, boxes by class) as globox reads Pascal VOC."""
    globox = pytest.importorskip("globox")
    read = list(globox.AnnotationSet.from_pascal_voc(folder / "annotations"))
    return len(read), Counter(box.label for each in read for box in each.boxes)


def _records(folder):
    """The same of TFRecords, by a plain parse of their examples."""
    count, boxes = 0, Counter()
    files = [str(path) for path in sorted(folder.glob("*.record"))]
    for data in tf.data.TFRecordDataset(files).as_numpy_iterator():
        feature = tf.train.Example.FromString(data).features.feature
        count += 1
        boxes.update(text.decode() for text in feature["image/object/class/text"].bytes_list.value)
    return count, boxes


@pytest.mark.slow
@pytest.mark.parametrize(("name", "read"), [("raccoon_voc", _voc), ("dice_tfrecords", _records)])
def test_other_formats_become_an_int8_file(name, read, shared, tmp_path, monkeypatch):
    data = shared / "data" / "formats" / name
    if not data.is_dir():
        pytest.skip("no real data in other formats")
    for constant, small in {
        "IMAGE_SIZE": 96, "DEPTH": 0.25, "BATCH": 4, "SEARCH_STEPS": 8, "FINALIST_STEPS": 8, "LEAST_STEPS": 8,
        "LEAST_SEARCH_STEPS": 8, "MOST_STEPS": 8,
    }.items():  # fmt: skip
        monkeypatch.setattr(command, constant, small)
    work = tmp_path / "work"
    assert command.run(["x", f"--work_dir={work}", f"--data={data}"]) == 0
    splits = json.loads((work / "records" / "dataset.json").read_text())["splits"]
    images, boxes = read(data)
    assert set(splits) == {"train", "val"}
    assert sum(split["images"] for split in splits.values()) == images
    assert sum((Counter(split["boxes_per_category"]) for split in splits.values()), Counter()) == boxes
    report = json.loads((work / "export" / "report.json").read_text())
    assert report["int8"]["AP"] >= 0 and report["float"]["AP"] >= 0
    labels = (work / "export" / "labels.txt").read_text().split("\n")
    assert sorted(filter(None, labels)) == sorted(boxes)
    assert (work / "export" / "detector.tflite").stat().st_size > 100_000
    assert (work / "index.html").is_file()
