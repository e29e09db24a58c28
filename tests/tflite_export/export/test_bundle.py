"""The folder to deploy: what is in it for each kind of file, and that the programs in it work."""

import subprocess
import sys

import numpy as np
import pytest
import yaml

from mobiledets_tf.cli import export
from tflite_export.detector import footage
from tflite_export.detector.detector import Detector
from tflite_export.devices import Compilation
from tflite_export.export import bundle
from tflite_export.tflite import metadata, suppression
from tflite_export.tflite.suppression import Suppression

LABELS = ("circle", 'a "star": 5', "7 up")
FAST = Suppression(25, 0.6, 0.05, "fast")
ALWAYS = {"detector.tflite", "labels.txt", "labels_indexed.txt", "README.md", "litert_detect.py"}


@pytest.fixture
def write(tflite, tmp_path):
    """Writes a bundle of a kind of file."""

    def make(quantization, input_type, settings=FAST, compiled=False):
        model = tmp_path / "made.tflite"
        data = suppression.changed(tflite(quantization, input_type).read_bytes(), settings)
        model.write_bytes(metadata.add(data, LABELS, "edgetpu", settings.score_threshold, "1"))
        folder = tmp_path / "bundle"
        answer = Compilation("not compiled", "", "edgetpu_compiler is not installed")
        if compiled:
            answer = Compilation("compiled", "", output=str(folder / "detector_edgetpu.tflite"))
        return folder, set(bundle.write(folder, model, LABELS, settings, answer))

    return make


def test_a_compiled_uint8_file_serves_all(write):
    folder, names = write("int8", "uint8", compiled=True)
    assert names == ALWAYS | {"coral_detect.py", "mediapipe_detect.py", "frigate.yml"}
    config = yaml.safe_load((folder / "frigate.yml").read_text())
    assert config["detectors"] == {"coral": {"type": "edgetpu", "device": "usb"}}
    assert config["model"] == {
        "path": "/config/detector_edgetpu.tflite",
        "labelmap_path": "/config/labels_indexed.txt",
        "width": 96,
        "height": 96,
        "input_tensor": "nhwc",
        "input_pixel_format": "rgb",
        "model_type": "ssd",
    }
    assert config["objects"]["track"] == list(LABELS)
    assert "detector_edgetpu.tflite" in (folder / "coral_detect.py").read_text()
    for path in folder.glob("*.py"):
        compile(path.read_text(), path.name, "exec")
    assert "$" not in "".join(path.read_text() for path in folder.glob("*.py"))
    assert "not compiled" not in (folder / "README.md").read_text()


def test_what_cannot_read_a_file_is_left_out_and_said(write):
    folder, names = write("int8", "int8")
    assert names == ALWAYS
    text = (folder / "README.md").read_text()
    assert "reject int8 input" in text and "edgetpu_compiler is not installed" in text


def test_a_float_file_has_no_coral_program(write):
    assert write("float", "float")[1] == ALWAYS | {"mediapipe_detect.py"}


def test_regular_suppression_gets_one_thread(write):
    folder, _ = write("int8", "uint8", Suppression(25, 0.6, 0.05, "regular"))
    assert yaml.safe_load((folder / "frigate.yml").read_text())["detectors"]["cpu"]["num_threads"] == 1
    assert "num_threads=1" in (folder / "litert_detect.py").read_text()
    assert "never returns class N + 1" in (folder / "README.md").read_text()


@pytest.mark.parametrize("kind", [("int8", "uint8"), ("int8", "int8"), ("float", "float")])
def test_the_litert_program_finds_what_we_find(write, kind, pictures, tmp_path):
    folder, _ = write(*kind)
    footage.write_image(tmp_path / "photo.png", pictures[0])
    command = [sys.executable, str(folder / "litert_detect.py"), str(tmp_path / "photo.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    detector = Detector(folder / "detector.tflite", score_threshold=0.05)
    assert detector.labels == LABELS
    found, lines = detector(pictures[0]), done.stdout.splitlines()
    assert len(lines) > 3
    # Pillow resizes on another grid: the best boxes are of the same class.
    best = detector.label(int(found.classes[0]))
    assert any(line.startswith(best) for line in lines[:3])
    assert np.abs(len(lines) - len(found.scores)) < 15


def test_a_bundle_needs_the_post_processing(training, tmp_path, capsys):
    flags = ["--bundle", "--postprocess=none", "--quantization=float", f"--output_dir={tmp_path / 'out'}"]
    assert export.run(["test", f"--checkpoint_dir={training}", *flags]) == 2
    assert "--bundle requires --postprocess=tflite" in capsys.readouterr().err
