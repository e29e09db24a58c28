"""mobiledets-export, mobiledets-compile, mobiledets-benchmark as a user calls them."""

import html.parser
import json
import os
import re
import subprocess
import sys
import time

import pytest

from mobiledets_tf import architecture as architectures
from mobiledets_tf.cli import benchmark, compile, export
from mobiledets_tf.errors import InputError
from tflite_export.export import exporter as exporting
from tflite_export.tflite import metadata, model_file

ARTEFACTS = {
    "detector.tflite",
    "labels.txt",
    "labels_indexed.txt",
    "report.json",
    "report.html",
    "architecture.json",
}


def run(command, **flags) -> int:
    return command.run(["test", *(f"--{name}={value}" for name, value in flags.items())])


@pytest.fixture(scope="module")
def exported(tmp_path_factory, training, folder):
    """(exit code, output folder) of a whole export with a gate that no file can pass by luck."""
    path = tmp_path_factory.mktemp("export") / "out"
    code = run(
        export,
        checkpoint_dir=training,
        calibration_data=folder,
        eval_data=folder,
        calibration_images=4,
        max_ap_drop=1,
        output_dir=path,
        bundle=True,
    )
    return code, path


def test_export_writes_a_measured_folder(exported, detector):
    code, path = exported
    assert code == 0
    evaluated = {"detections.png", "detections.json"}
    assert {entry.name for entry in path.iterdir()} == ARTEFACTS | evaluated | {"bundle"}
    shipped = (path / "bundle" / "detector.tflite").read_bytes()
    assert shipped == (path / "detector.tflite").read_bytes()
    report = json.loads((path / "report.json").read_text())
    assert set(report["float"]) == set(report["int8"])
    assert len(report["int8"]) == 12
    assert report["float"]["AP50"] > 0.5
    assert report["params"] == detector.count_params()
    assert report["file"]["bytes"] == (path / "detector.tflite").stat().st_size
    assert report["file"]["histogram"] == model_file.read(path / "detector.tflite").histogram()
    assert report["calibration"] == {"source": "images", "count": 4, "seed": 0, "split": "train"}
    assert report["evaluation"] == {
        "images": 6,
        "split": "val",
        "files": ["val-00000-of-00001.tfrecord"],
        "all_images": True,
        "score_threshold": 1e-8,
        "max_detections": 100,
        "nms": "fast",
    }
    # Shipped for use, measured for AP: one conversion, both suppressions.
    options, nms = report["options"], report["nms"]
    assert (options["score_threshold"], options["max_detections"], options["nms"]) == (0.2, 25, "fast")
    assert nms["fast"] == {key: report["int8"][key] for key in ("AP", "AP50")}
    assert set(nms["regular_on_threads"]) == {"1", "2", "4"} and nms["shipped"] == "fast"
    assert nms["regular"] == nms["regular_on_threads"]["1"]
    assert report["file"]["outputs"][0]["shape"] == [1, 25, 4]
    results = json.loads((path / "detections.json").read_text())
    assert {result["image_id"] for result in results} == {100 + number for number in range(6)}
    assert min(result["score"] for result in results) < 0.2
    assert (path / "labels_indexed.txt").read_text() == "0  circle\n1  square\n2  star\n"
    assert report["float_tflite"]["AP"] == pytest.approx(report["float"]["AP"], abs=0.01)
    assert set(report["quantization_error"]["outputs"]) == {"raw_boxes", "class_scores"}
    assert report["options"]["weights"] == "per_channel"
    assert all(verdict["ready"] for verdict in report["readiness"].values())
    assert report["latency"]["kind"] == "measured"
    assert {"stem", "block2_layer1", "predictor5_class"} <= report["latency"]["blocks_ms"].keys()
    assert metadata.labels_of((path / "detector.tflite").read_bytes()) == ["circle", "square", "star"]
    assert report["gate"]["passed"]
    assert report["gate"]["ap_drop"] == pytest.approx(report["float"]["AP"] - report["int8"]["AP"])
    assert (path / "labels.txt").read_text() == "circle\nsquare\nstar\n"
    assert architectures.load(str(path / "architecture.json")) == architectures.load("edgetpu")


def test_the_page_is_one_file_with_everything_in_it(exported):
    content = (exported[1] / "report.html").read_text()
    report = json.loads((exported[1] / "report.json").read_text())
    parser = Page()
    parser.feed(content)
    assert not parser.open
    assert {"script", "link", "iframe"}.isdisjoint(parser.tags)
    assert all(source.startswith("data:image/png;base64,") for source in parser.sources)
    assert len(parser.sources) == 1
    text = " ".join(" ".join(parser.text).split())
    for name in ("float", "float_tflite", "int8"):
        assert f"{report[name]['AP']:.4f}" in text
    for words in (
        "split val",
        "hexagon : ready",
        "edgetpu : ready",
        "predictor0_class",
        "Quality gate: passed",
    ):
        assert words in text
    operations = re.search(r"All (\d+) operations", text)
    assert int(operations[1]) == report["file"]["operators"]


class Page(html.parser.HTMLParser):
    """Tags, texts and sources; `open` holds what was not closed."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text, self.sources = set(), [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_a_gate_names_the_layers_of_largest_error(training, folder, tflite, tmp_path, monkeypatch, capsys):
    """Both files are made before; the gate allows no error at all."""
    kinds = (("float", "float"), ("int8", "uint8"))
    made = {kind: tflite(*kind).read_bytes() for kind in kinds}

    def convert(detector, anchors, options, *rest):
        return made[options.quantization, options.input_type]

    monkeypatch.setattr(exporting.convert, "convert", convert)
    flags = {"checkpoint_dir": training, "calibration_data": folder, "max_output_error": 0}
    assert run(export, **flags, output_dir=tmp_path / "out") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["quantization_error"]["layers"][0]["block"] in error
    assert not report["gate"]["passed"] and report["gate"]["ap_drop"] is None
    assert os.listdir(tmp_path) == ["out"]


def test_the_gate_fails_with_1_and_leaves_the_report(training, folder, tmp_path, monkeypatch, capsys):
    """Conversion is not repeated: the int8 detector is replaced by one that finds nothing."""
    import numpy as np

    from tflite_export.export.evaluate import Detections

    empty = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    monkeypatch.setattr(exporting, "FileDetector", lambda *args, **kwargs: lambda image: empty)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "labels.txt").write_text("old")
    code = run(
        export,
        checkpoint_dir=training,
        eval_data=folder,
        quantization="float",
        max_ap_drop=0.01,
        output_dir=out,
    )
    assert code == 1
    assert "AP drops by" in capsys.readouterr().err
    report = json.loads((out / "report.json").read_text())
    assert not report["gate"]["passed"]
    assert report["float_tflite"]["AP"] == 0
    assert report["int8"] is None
    # An earlier export is replaced, other files stay.
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "labels.txt").read_text() == "circle\nsquare\nstar\n"


def test_an_export_that_fails_leaves_nothing(training, folder, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise InputError("broken record")

    monkeypatch.setattr(exporting, "evaluate", fail)
    monkeypatch.setattr(exporting.convert, "convert", lambda *args: b"")
    monkeypatch.setattr(exporting, "_with_metadata", lambda model, settings: model)
    monkeypatch.setattr(exporting, "FileDetector", lambda *args, **kwargs: None)
    monkeypatch.setattr(exporting, "_measured", lambda *args, **kwargs: None)
    data = {"calibration_data": folder, "eval_data": folder}
    code = run(export, checkpoint_dir=training, output_dir=tmp_path / "out", **data)
    assert code == 2
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_of_another_network_is_refused(training, folder, tmp_path, capsys):
    (tmp_path / "t").mkdir()
    for file in training.iterdir():
        (tmp_path / "t" / file.name).write_bytes(file.read_bytes())
    architectures.save(architectures.load("dsp"), tmp_path / "t" / "architecture.json")
    code = run(export, checkpoint_dir=tmp_path / "t", calibration_data=folder, output_dir=tmp_path / "out")
    assert code == 2
    assert "belongs to another network" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"architecture": "edgetup"}, "did you mean 'edgetpu'?"),
        ({"architecture": "cpu", "quantization": "qta"}, "allowed: float, int8, qat"),
        ({"architecture": "cpu", "quantization": "qat"}, "requires --checkpoint_dir"),
        ({"architecture": "cpu", "quantization": "float", "input_type": "uint8"}, "allowed: float"),
        ({"architecture": "cpu", "quantization": "float", "per_tensor": True}, "apply to int8"),
        ({"architecture": "cpu", "image_size": 32}, "six feature maps"),
        ({"architecture": "cpu", "num_classes": 0}, "num_classes"),
        ({"architecture": "cpu", "max_ap_drop": 0.1}, "--max_ap_drop requires --eval_data"),
        ({"architecture": "cpu", "eval_data": "/nowhere/*"}, "no TFRecord files match"),
        ({"checkpoint_dir": "/nowhere"}, "this folder or checkpoint does not exist"),
        ({}, "--architecture is required"),
    ],
)
def test_wrong_flags_get_one_line_and_2(flags, words, tmp_path, capsys):
    assert run(export, output_dir=tmp_path / "out", **flags) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_int8_of_a_checkpoint_needs_images(training, tmp_path, capsys):
    assert run(export, checkpoint_dir=training, output_dir=tmp_path / "out") == 2
    assert "--calibration_data is required" in capsys.readouterr().err


def test_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert run(export, architecture="cpu", output_dir=tmp_path / "out") == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["export", "compile", "benchmark"])
def test_help_and_wrong_flags_answer_without_tensorflow(module):
    script = (
        f"import sys; from mobiledets_tf.cli import {module} as m; "
        "codes = (m.run(['x', '--help']), m.run(['x', '--modle=1'])); "
        "assert 'tensorflow' not in sys.modules; print(codes)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "(0, 2)"
    assert time.perf_counter() - start < 5


def test_compile_says_ready_and_ends_with_0(exported, capsys):
    capsys.readouterr()
    assert run(compile, model=exported[1] / "detector.tflite", format="json") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["ready"]
    assert verdict["findings"] == []
    assert verdict["compiler"]["command"].startswith("edgetpu_compiler -s")
    assert not verdict["parameters"]["streamed"]
    coverage = verdict["coverage"]
    assert (coverage["subgraphs"], coverage["first_on_cpu"]["op"]) == (1, "DEQUANTIZE")
    assert coverage["mapped"] == coverage["operations"] - 3


def test_compile_names_the_fault_and_ends_with_1(tflite, capsys):
    model = tflite("int8", "float")
    assert run(compile, model=model, target="edgetpu") == 1
    text = capsys.readouterr().out
    assert "NOT ready for edgetpu" in text
    assert "op 0 QUANTIZE" in text
    assert run(compile, model=model, format="json") == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert set(finding) == {"op_index", "op", "tensor", "block", "reason"}


def test_benchmark_prints_a_measurement(tflite, capsys):
    flags = {"device": "host_cpu", "threads": 1, "runs": 5, "format": "json"}
    assert run(benchmark, model=tflite("int8", "uint8"), **flags) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kind"] == "measured"
    assert result["median_ms"] > 0
    assert run(benchmark, model=tflite("int8", "uint8"), runs=5) == 0
    printed = capsys.readouterr()
    assert "ms (measured on host_cpu" in printed.out and not printed.err
    assert run(benchmark, model=tflite("int8", "uint8"), runs=5, threads=2) == 0
    assert "run such a file on one thread" in capsys.readouterr().err
    assert run(benchmark, model=tflite("int8", "int8", "none"), runs=5, threads=2) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize("target", ["hexagon", "ethos_u"])
def test_compile_of_other_chips(target, tflite, folder, tmp_path, capfd):
    pytest.importorskip({"hexagon": "onnxruntime_qnn", "ethos_u": "ethosu.vela"}[target])
    flags = {"eval_data": folder} if target == "hexagon" else {}
    model = tflite("int8", "uint8")
    assert run(compile, model=model, target=target, output_dir=tmp_path, format="json", **flags) == 0
    verdict = json.loads(capfd.readouterr().out)
    assert verdict["ready"] and verdict["compiler"]["status"] == "compiled"
    assert os.listdir(tmp_path) == [os.path.basename(verdict["compiler"]["output"])]
    if target == "hexagon":
        assert verdict["emulation"]["images"] == 4
    assert run(compile, model=model, target=target, output_dir=tmp_path) == 0
    text = capfd.readouterr().out
    assert "operations offloaded" in text if target == "hexagon" else "block2_layer1" in text


def test_compile_of_a_float_file_is_not_ready_even_where_it_compiles(tflite, tmp_path, capsys):
    assert run(compile, model=tflite("float", "float"), target="hexagon", output_dir=tmp_path) == 1
    assert "op 0 CONV_2D in stem: tensor is float32; allowed: int8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"target": "edgetpu", "variant": "x"}, "--variant=x with --target=edgetpu, which has no variants"),
        ({"target": "hexagon", "variant": "SM855"}, "did you mean 'SM8550'?"),
        ({"target": "ethos_u", "eval_data": "x"}, "allowed: hexagon"),
    ],
)
def test_compile_refuses_what_a_target_has_not(flags, words, tflite, capsys):
    assert run(compile, model=tflite("int8", "uint8"), **flags) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("device", "kind"), [("hexagon", "simulated"), ("ethos_u", "compiled")])
def test_benchmark_says_what_kind_of_time_it_is(device, kind, tflite, capfd):
    pytest.importorskip({"hexagon": "onnxruntime_qnn", "ethos_u": "ethosu.vela"}[device])
    assert run(benchmark, model=tflite("int8", "uint8"), device=device, format="json") == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["kind"], result["device"]) == (kind, device)
    assert result["median_ms"] > 0


def test_benchmark_of_a_float_file_on_hexagon_is_refused(tflite, capsys):
    pytest.importorskip("onnxruntime_qnn")
    assert run(benchmark, model=tflite("float", "float"), device="hexagon") == 2
    assert "is not int8" in capsys.readouterr().err


@pytest.mark.parametrize("command", [compile, benchmark])
def test_a_file_that_is_no_model_gets_one_line_and_2(command, tmp_path, capsys):
    path = tmp_path / "model.tflite"
    path.write_text("not a model at all")
    assert run(command, model=path) == 2
    assert "not a .tflite file" in capsys.readouterr().err
