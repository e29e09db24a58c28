"""The page of a quickstart: complete, self-contained, safe with hostile names, seen by a browser."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mobiledets_tf import architecture
from mobiledets_tf.architecture import drawing
from mobiledets_tf.errors import InputError
from mobiledets_tf.quickstart import pipeline, quickstart_page

HOSTILE = "<script>alert('x')</script>&\"né"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)


class _Reader(HTMLParser):
    """Collects text, tags and attributes; checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.attributes, self.open = "", [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def _write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def work(tmp_path):
    network = architecture.load("edgetpu").scaled(0.35)
    for folder in ("search", "train", "export"):
        (tmp_path / folder).mkdir()
    architecture.save(network, tmp_path / "search" / "architecture.json")
    drawing.draw([network], tmp_path / "architecture.png", 160, 5)
    for name in ("search/search_report.png", "train/training_curve.png"):
        Image.new("RGB", (900, 400), "lightgrey").save(tmp_path / name)
    _write(
        tmp_path / "summary.json",
        {
            "float_AP": 0.51,
            "float_AP50": 0.81,
            "int8_AP": 0.5,
            "int8_AP50": 0.79,
            "parameters": 1234567,
            "multiply_adds": 7654321,
            "file_bytes": 1500000,
            "host_ms": 4.56,
        },
    )
    finalists = [
        {
            "source": source,
            "quality": -1.25,
            "trained_alone": 60,
            "score_alone": score,
            "params": 510_000,
            "cost_over_target": 0.99,
        }
        for source, score in (("population", -0.9), (f"candidate {HOSTILE}", -1.0), ("published cpu", None))
    ]
    search = {
        "schema_version": 3,
        "cost": 1.2e8,
        "target": 1.0e8,
        "cost_unit": HOSTILE,
        "cost_kind": "exact",
        "settings": {"metric": "loss"},
        "devices": [{"finalists": finalists}],
        "words": ["madds: loss 0.9000 of the network found"],
    }
    _write(tmp_path / "search" / "search_report.json", search)
    finding = {"op_index": 3, "op": "GATHER", "tensor": "t", "block": HOSTILE, "reason": "not supported"}
    _write(
        tmp_path / "export" / "report.json",
        {
            "schema_version": 1,
            "num_classes": 5,
            "image_size": [160, 160],
            "float": {"AP": 0.51, "AP50": 0.81},
            "int8": {"AP": 0.5, "AP50": 0.79},
            "evaluation": {"images": 60},
            "readiness": {
                "edgetpu": {"ready": False, "findings": [finding]},
                "ethos_u": {
                    "ready": True,
                    "findings": [],
                    "compiler": {"status": "not compiled", "reason": "x"},
                },
            },
            "latency": {
                "median_ms": 4.56,
                "kind": "measured",
                "device": "host_cpu",
                "threads": 1,
                "runs": 50,
                "spread": 0.02,
                "blocks_ms": {"stem": 0.5, "block7_layer1": 1.5},
            },
        },
    )
    return tmp_path


def test_the_page_says_everything_and_needs_nothing(work):
    text = quickstart_page.write(work).read_text(encoding="utf-8")
    read = _Reader(text)
    expected = (
        "0.810",
        "0.790",
        "AP drops by 0.0100 from float to int8",
        "1.20 times the target",
        "4.56 ms",
        "measured on host_cpu",
        "edgetpu: not ready (static check of the file)",
        "GATHER",
        "block7_layer1",
        "published cpu",
        "0.9000",
        "madds: loss 0.9000 of the network found.",
    )
    for words in expected:
        assert words in read.text
    # There is no image of detections: the page says so and is written nevertheless.
    assert "The image detections.png does not exist" in read.text
    pictures = [value for name, value in read.attributes if name == "src"]
    assert len(pictures) == 3 and "Latency model" not in read.text
    for picture in pictures:
        data = base64.b64decode(picture.removeprefix("data:image/png;base64,"), validate=True)
        assert Image.open(io.BytesIO(data)).format == "PNG"
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r'src="[^"]*"', "", text))
    assert sum(value == "bar" for name, value in read.attributes if name == "class") == 2


def test_hostile_names_stay_text(work):
    read = _Reader(quickstart_page.write(work).read_text(encoding="utf-8"))
    assert "script" not in read.tags and read.text.count(HOSTILE) == 3
    assert not any(name.startswith("on") for name, _ in read.attributes)


def test_a_fitted_latency_model_is_shown(work):
    Image.new("RGB", (900, 400), "lightgrey").save(work / "latency_model.png")
    # Left there by a run for a device.
    assert "Latency model" not in _Reader(quickstart_page.write(work).read_text(encoding="utf-8")).text
    report = json.loads((work / "search" / "search_report.json").read_text())
    _write(work / "search" / "search_report.json", report | {"cost_kind": "simulated"})
    read = _Reader(quickstart_page.write(work).read_text(encoding="utf-8"))
    assert "Latency model" in read.text and "Predicted against simulated latency" in read.text


def test_a_missing_report_is_named_and_an_old_page_stays(work):
    before = quickstart_page.write(work).read_bytes()
    (work / "export" / "report.json").unlink()
    with pytest.raises(InputError, match="export report"):
        quickstart_page.write(work)
    assert (work / "index.html").read_bytes() == before


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH")
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_it(work, tmp_path, width):
    shot = tmp_path / "shot.png"
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        f"--window-size={width},1000",
        f"--screenshot={shot}",
        quickstart_page.write(work).as_uri(),
    ]
    done = subprocess.run([BROWSER, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr  # Neither an error nor anything refused by the page's policy.
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] == width and pixels.std() > 10


def test_the_quickstart_ends_with_its_figures_and_the_page(work):
    (work / "summary.json").unlink()
    (work / "export" / "detector.tflite").write_bytes(b"1234")
    shown = pipeline.summarise(work, 5)
    summary = json.loads((work / "summary.json").read_text())
    assert (summary["file_bytes"], summary["host_ms"], summary["int8_AP50"]) == (4, 4.56, 0.79)
    assert shown["page"] == str(work / "index.html") and shown["int8_AP50"] == 0.79
    assert "4.6 ms" in _Reader((work / "index.html").read_text(encoding="utf-8")).text
