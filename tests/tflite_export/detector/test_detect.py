"""`Detector` and mobiledets-detect: on images, a folder, a video, with and without annotations; faults."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobiledets_tf import architecture
from mobiledets_tf.cli import detect
from mobiledets_tf.errors import InputError
from tflite_export.detector import detect as running
from tflite_export.detector import footage
from tflite_export.detector.detector import Detector
from tflite_export.detector.file_detector import PostprocessedFile
from tflite_export.tflite import metadata, pixels, suppression
from tflite_export.tflite.suppression import SHIPPED, Suppression

SIZE = 96  # of the detector in conftest.py
LABELS = ["circle", "square", "star"]
README = Path(__file__).resolve().parents[3] / "README.md"


def run(**flags) -> int:
    return detect.run(["test", *(f"--{name}={value}" for name, value in flags.items())])


@pytest.fixture(scope="module")
def model(tflite, tmp_path_factory):
    """A file as it is shipped."""
    path = tmp_path_factory.mktemp("shipped") / "detector.tflite"
    data = suppression.changed(tflite("int8", "uint8").read_bytes(), SHIPPED)
    path.write_bytes(metadata.add(data, LABELS, "edgetpu", 0.2, "1"))
    return path


@pytest.fixture(scope="module")
def photos(pictures, tmp_path_factory):
    """A data set: three images in folders of their own, and boxes where the detector finds some."""
    path = tmp_path_factory.mktemp("photos")
    entries = []
    for number, picture in enumerate(pictures[:3]):
        name = f"part {number % 2}/größe {number}.png"
        (path / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        footage.write_image(path / "val" / name, picture)
        # Ids as COCO's: not from 1, 0 among them.
        entries.append({"id": 7 * number, "file_name": name, "width": 150, "height": 120})
    categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(LABELS)]
    (path / "instances_val.json").write_text(
        json.dumps(
            {
                "images": entries,
                "categories": categories,
                "annotations": [{"id": 1, "image_id": 0, "category_id": 20, "bbox": [10, 10, 50, 40]}],
            }
        )
    )
    return path


@pytest.mark.parametrize("shape", [(120, 150), (70, 300), (96, 96), (40, 33)])
def test_resizing_is_that_of_training(pictures, shape):
    from mobiledets_tf.data import preprocessing

    picture = np.array(preprocessing.resize(pictures[0], shape)).astype(np.uint8)
    ours = pixels.resize(picture, (SIZE, 64)).astype(float)
    assert np.abs(ours - preprocessing.resize(picture, (SIZE, 64))).max() <= 2


def test_each_input_type_gets_the_same_pixels():
    levels = np.arange(256, dtype=np.uint8)[:, np.newaxis, np.newaxis].repeat(3, axis=2)
    assert np.array_equal(pixels.as_input(levels, np.dtype(np.uint8))[0], levels)
    assert np.array_equal(pixels.as_input(levels, np.dtype(np.int8))[0].astype(int), levels.astype(int) - 128)
    as_float = pixels.as_input(levels, np.dtype(np.float32))[0]
    assert as_float.dtype == np.float32 and as_float.min() == -1 and as_float.max() == 1


@pytest.mark.parametrize("kind", [("int8", "uint8"), ("int8", "int8"), ("float", "float")])
def test_a_detector_finds_what_the_evaluation_finds(tflite, pictures, kind):
    data = suppression.changed(tflite(*kind).read_bytes(), Suppression(nms="fast"))
    expected = PostprocessedFile(data)
    path = tflite(*kind)
    path = path.with_name(f"fast_{path.name}")
    path.write_bytes(data)
    ours = Detector(path, score_threshold=0.05, max_detections=40)
    assert ours.labels == () and ours.label(2) == "class 2" and ours.input_size == (SIZE, SIZE)
    for picture in pictures:
        # Of the network's size: what is compared is all that follows the resizing.
        picture = pixels.resize(picture, (SIZE, SIZE))
        found, other = ours(picture), expected.run(pixels.as_input(picture, expected.input_dtype))
        assert 0 < len(found.scores) <= 40 and found.scores.min() >= 0.05
        kept = (other.scores >= 0.05).nonzero()[0][:40]
        np.testing.assert_array_equal(found.scores, other.scores[kept])
        np.testing.assert_array_equal(found.boxes, other.boxes[kept])
        np.testing.assert_array_equal(found.classes, other.classes[kept])


def test_a_checkpoint_finds_what_its_file_finds(training, tflite, pictures):
    ours, file = Detector(training), Detector(tflite("float", "float"))
    assert ours.labels == tuple(LABELS)
    found, expected = ours(pictures[1]), file(pictures[1])
    assert len(found.scores)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    np.testing.assert_array_equal(found.classes, expected.classes)


def test_a_folder_is_annotated_and_written_as_coco_results(model, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(model=model, images=photos / "val", output_dir=out, format="json", threads=2) == 0
    printed = json.loads(capsys.readouterr().out)
    results = json.loads((out / "detections.json").read_text())
    images_file = json.loads((out / "images.json").read_text())
    assert printed["images"] == len(images_file["images"]) == 3
    assert printed["detections"] == len(results) > 0 and printed["images_per_s"] > 0
    assert all(result["score"] >= 0.3 for result in results)
    assert [category["name"] for category in images_file["categories"]] == LABELS
    names = {image["file_name"]: image["id"] for image in images_file["images"]}
    assert {result["image_id"] for result in results} <= set(names.values())
    for name in names:
        assert footage.read_image(out / "annotated" / name).shape == (120, 150, 3)
    # pycocotools reads both.
    from pycocotools.coco import COCO

    assert len(COCO(out / "images.json").loadRes(str(out / "detections.json")).anns) == len(results)
    # The same as one call of the class.
    found = Detector(model)(photos / "val" / "part 0/größe 0.png")
    ours = sorted(r["score"] for r in results if r["image_id"] == names["part 0/größe 0.png"])
    assert ours == pytest.approx(sorted(found.scores.tolist()))
    assert sorted(os.listdir(out)) == ["annotated", "detections.json", "images.json"]


def test_annotations_are_scored_with_the_evaluation_s_thresholds(model, photos, tmp_path, capsys):
    flags = {"model": model, "images": photos / "val", "annotations": photos / "instances_val.json"}
    assert run(**flags, output_dir=tmp_path / "out", draw=False) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    assert f"AP {metrics['AP']:.4f}, AP50" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {result["image_id"] for result in results} == {0, 7, 14}
    assert {result["category_id"] for result in results} <= {10, 20, 30}
    assert min(result["score"] for result in results) < 0.2
    # An image more in the folder is skipped with a message; one less is refused.
    extra = photos / "val" / "extra.png"
    extra.write_bytes((photos / "val" / "part 0/größe 0.png").read_bytes())
    try:
        assert run(**flags, output_dir=tmp_path / "two", draw=False) == 0
        assert "1 images of the folder are not in the annotations" in capsys.readouterr().out
    finally:
        extra.unlink()
    assert run(**flags | {"images": photos / "val" / "part 0"}, output_dir=tmp_path / "three") == 2
    assert "3 annotated images are not in" in capsys.readouterr().err


def test_categories_are_known_by_name(model, photos, tmp_path, capsys):
    labels = tmp_path / "other.txt"
    labels.write_text("circles\nsquare\nstar\n")
    flags = {"model": model, "images": photos / "val", "annotations": photos / "instances_val.json"}
    assert run(**flags, labels=labels, output_dir=tmp_path / "out") == 2
    assert "category 'circle' of the annotations is not a class of the model (did you mean 'circles'?)" in (
        capsys.readouterr().err
    )


def test_an_interrupted_folder_goes_on(model, photos, tmp_path, monkeypatch, capsys):
    calls = []

    class Stop:
        requested = property(lambda self: len(calls) == 2)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    before = Detector.__call__
    monkeypatch.setattr(Detector, "__call__", lambda self, image: (calls.append(1), before(self, image))[1])
    monkeypatch.setattr("tflite_export.detector.detect.StopRequest", Stop)
    flags = {"model": model, "images": photos / "val", "output_dir": tmp_path / "out"}
    assert run(**flags) == 130
    assert not (tmp_path / "out" / "detections.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr(Detector, "__call__", lambda self, image: (calls.append(1), before(self, image))[1])
    assert run(**flags) == 0
    assert len(calls) == 3
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 3
    # Other settings begin anew.
    journal = running._Journal(tmp_path / "j", {"a": 1})
    journal.add("x", {})
    assert running._Journal(tmp_path / "j", {"a": 2}).rows == {}


@pytest.fixture
def video(pictures, tmp_path):
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (150, 120))
    for number in range(30):
        writer.write(cv2.cvtColor(pictures[number % len(pictures)], cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_a_video_becomes_a_video(model, video, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(model=model, images=video, output_dir=out) == 0
    assert "30 images" in capsys.readouterr().out
    assert sorted(os.listdir(out)) == ["annotated.mp4", "detections.json", "images.json"]
    assert len(list(footage.Video(str(out / "annotated.mp4")))) == 30
    assert run(model=model, images=video, output_dir=out, max_images=4, draw=False) == 0
    assert len(json.loads((out / "images.json").read_text())["images"]) == 4


def test_a_video_that_is_cut_is_said_and_its_results_stay(model, video, tmp_path, capsys):
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    assert run(model=model, images=video, output_dir=tmp_path / "out", draw=False) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "ends after" in error and "it is truncated" in error
    assert json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    video.write_bytes(data[:100])
    assert run(model=model, images=video, output_dir=tmp_path / "two") == 2
    assert "cannot be opened; it is truncated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"images": "camera:77"}, "camera 77 cannot be opened"),
        ({"images": "camera:x"}, "allowed for a camera: camera:0"),
        ({"images": "/nowhere"}, "--images=/nowhere does not exist"),
        ({"images": "EMPTY"}, "contains no images"),
        ({"images": "TEXT"}, "is not an image, video, folder or camera"),
        ({"model": "RAW"}, "no post-processing"),
        ({"model": "TEXT"}, "not a .tflite file"),
        ({"model": "/nowhere.tflite"}, "cannot read model"),
        ({"labels": "LABELS"}, "2 names, but the model has 3 classes"),
        ({"annotations": "/nowhere.json"}, "is not a file"),
        ({"annotations": "TEXT"}, "not valid JSON"),
        ({"device": "corla"}, "did you mean 'coral'?"),
        ({"output_dir": "TEXT"}, "is a file"),
        ({"score_threshold": 2}, "score_threshold"),
    ],
)
def test_faults_get_one_line_and_2(flags, words, model, photos, tflite, tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    places = {
        "EMPTY": tmp_path / "empty",
        "TEXT": tmp_path / "text.txt",
        "LABELS": tmp_path / "labels.txt",
        "RAW": tflite("int8", "int8", "none"),
    }
    given = {"model": model, "images": photos / "val", "output_dir": tmp_path / "out"}
    given |= {name: places.get(value, value) for name, value in flags.items()}
    assert run(**given) == 2
    error = capfd.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_damaged_images_are_named(model, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"\xff\xd8 no image")
    assert run(model=model, images=tmp_path / "in", output_dir=tmp_path / "out") == 2
    assert "a.jpg' cannot be decoded" in capsys.readouterr().err
    (tmp_path / "in" / "b.png").write_bytes(b"")
    assert run(model=model, images=tmp_path / "in", output_dir=tmp_path / "out") == 2
    assert "; 1 other images cannot be read either" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
    assert run(model=model, images=tmp_path / "in", output_dir=tmp_path / "in") == 2
    assert "is inside the folder of the images" in capsys.readouterr().err
    with pytest.raises(InputError, match="uint8"):
        Detector(model)(np.zeros((5, 5, 3), np.float32))


@pytest.mark.parametrize("scored", [False, True])
def test_an_image_that_cannot_be_read_does_not_stop_the_others(scored, model, photos, tmp_path, capsys):
    """The others get the same results as without it; the message and the files name it."""
    whole = tmp_path / "whole"
    more = {"annotations": photos / "instances_val.json"} if scored else {}
    assert run(model=model, images=photos / "val", output_dir=whole, **more) == 0
    given = tmp_path / "val"
    shutil.copytree(photos / "val", given)
    name = "part 1/größe 1.png"
    (given / name).write_bytes((given / name).read_bytes()[:40])
    capsys.readouterr()
    out = tmp_path / "out"
    assert run(model=model, images=given, output_dir=out, format="json", **more) == 1
    printed, error = capsys.readouterr()
    assert "1 of 3 images could not be read" in error and f"{name}' cannot be decoded" in error
    assert ("AP counts their boxes as missed" in error) == scored
    printed = json.loads(printed)
    assert printed["images"] == 2 and list(printed["unread"]) == [name]
    listed = json.loads((out / ("metrics.json" if scored else "images.json")).read_text())
    assert list(listed["unread"]) == [name]
    if scored:
        before, after = (json.loads((each / "detections.json").read_text()) for each in (whole, out))
        assert after == [row for row in before if row["image_id"] != 7] and len(after) < len(before)
    else:
        assert [image["file_name"] for image in listed["images"]] == [
            "part 0/größe 0.png",
            "part 0/größe 2.png",
        ]
    assert not (out / "annotated" / name).exists() and (out / "annotated" / "part 0").is_dir()
    # Mended, the image is detected too.
    shutil.copy(photos / "val" / name, given / name)
    assert run(model=model, images=given, output_dir=out, **more) == 0
    for each in ("detections.json", "metrics.json" if scored else "images.json"):
        assert (out / each).read_text() == (whole / each).read_text()


def test_a_detector_of_others(shared, tmp_path, capsys):
    """Trained in TF1, without a signature, metadata or output shapes."""
    path = shared / "reference" / "coral_detector" / "ssdlite_mobiledet_dog_vs_cat.tflite"
    if not path.is_file():
        pytest.skip("no detector of others")
    labels = tmp_path / "pets.txt"
    labels.write_text("0 cat\n1 dog\n")
    ours = Detector(path, labels)
    assert (ours.num_classes, ours.input_size, ours.label(2)) == (2, (320, 320), "dog")
    found = ours(np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8))
    assert found.boxes.shape == (len(found.scores), 4)


def test_the_class_and_the_help_need_no_tensorflow(model):
    script = (
        "import sys, numpy; from mobiledets_tf.cli import detect; "
        "assert 'tflite_export.detector' not in sys.modules and 'cv2' not in sys.modules; "
        "from tflite_export.detector import Detector; "
        f"Detector({str(model)!r})(numpy.zeros((50, 60, 3), numpy.uint8)); "
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_snippets_of_the_readme_run(model, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("quickstart/export").mkdir(parents=True)
    shutil.copy(model, "quickstart/export/detector.tflite")
    footage.write_image("photo.jpg", pictures[0])
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    _, build, run_detector = snippets  # The first is rehearsed in tests/api.
    names = {}
    exec(build, names)
    described = architecture.describe(architecture.load("edgetpu"), num_classes=10)
    assert capsys.readouterr().out.split() == [str(described["madds"])]
    assert names["model"].count_params() == described["params"]
    assert names["boxes"].shape == (1, 100, 4)
    exec(run_detector, {})
    found = Detector(model)("photo.jpg")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(found.scores) > 0
    assert lines[0].split()[0] == LABELS[found.classes[0] - 1]
