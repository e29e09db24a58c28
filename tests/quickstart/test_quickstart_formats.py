"""The quickstart on data as other tools leave them: from a folder that is not COCO to an int8 file."""

import dataclasses
import json
from collections import Counter

import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.quickstart import pipeline
from mobiledets_tf.quickstart.options import QuickstartOptions
from mobiledets_tf.quickstart.runner import run_stages


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
    """The quickstart's own commands at a small setting, with a published network in place of a search."""
    data, work = shared / "data" / "formats" / name, tmp_path / "work"
    if not data.is_dir():
        pytest.skip("no real data in other formats")
    settings = {"IMAGE_SIZE": 96, "DEPTH": 0.25, "BATCH": 4, "LEAST_STEPS": 4, "MOST_STEPS": 4}
    for constant, small in settings.items():
        monkeypatch.setattr(pipeline, constant, small)
    options = QuickstartOptions(work_dir=work, data=data)
    stages = pipeline._prepare(work, data, options)
    assert run_stages(work, stages, []) == 0
    splits = json.loads((work / "records" / "dataset.json").read_text())["splits"]
    images, boxes = read(data)
    assert set(splits) == {"train", "val"}
    assert sum(split["images"] for split in splits.values()) == images
    assert sum((Counter(split["boxes_per_category"]) for split in splits.values()), Counter()) == boxes

    stages += pipeline.latency_stages(work, len(boxes), options)
    assert run_stages(work, stages, []) == 0
    _, train, export = pipeline._learn(work, splits["train"]["images"], options)
    kept = [flag for flag in train.flags if not flag.startswith(("--architecture=", "--init_from="))]
    network = ("--architecture=edgetpu", f"--depth_multiplier={pipeline.DEPTH}")
    train = dataclasses.replace(train, flags=(*network, *kept))
    assert run_stages(work, [*stages, train, export], []) == 0
    report = json.loads((work / "export" / "report.json").read_text())
    assert report["int8"]["AP"] >= 0 and report["float"]["AP"] >= 0
    labels = (work / "export" / "labels.txt").read_text().split("\n")
    assert sorted(filter(None, labels)) == sorted(boxes)
    assert (work / "export" / "detector.tflite").stat().st_size > 100_000
