"""mobiledets-export, mobiledets-compile, mobiledets-benchmark as a user calls them."""

import json
import os
import subprocess
import sys
import time

import pytest

from mobiledets_tf import architecture as architectures
from mobiledets_tf.cli import benchmark, compile, export
from mobiledets_tf.errors import InputError
from tflite_export import devices, inspect
from tflite_export import export as exporting

ARTEFACTS = {"detector.tflite", "labels.txt", "report.json", "architecture.json"}


def run(command, **flags) -> int:
    return command.run(["test", *(f"--{name}={value}" for name, value in flags.items())])


@pytest.fixture(scope="module")
def exported(tmp_path_factory, training, folder):
    """(exit code, output folder) of a whole export with a gate that no file can pass by luck."""
    path = tmp_path_factory.mktemp("export") / "out"
    code = run(
        export, checkpoint_dir=training, calibration_data=folder, eval_data=folder, calibration_images=4,
        max_ap_drop=1, output_dir=path,
    )  # fmt: skip
    return code, path


def test_export_writes_a_measured_folder(exported, detector):
    code, path = exported
    assert code == 0
    assert {entry.name for entry in path.iterdir()} == ARTEFACTS | {"detections.png"}
    report = json.loads((path / "report.json").read_text())
    assert set(report["float"]) == set(report["int8"])
    assert len(report["int8"]) == 12
    assert report["float"]["AP50"] > 0.5
    assert report["params"] == detector.count_params()
    assert report["file"]["bytes"] == (path / "detector.tflite").stat().st_size
    assert report["file"]["histogram"] == inspect.read(path / "detector.tflite").histogram()
    assert report["calibration"] == {"source": "images", "count": 4, "seed": 0}
    assert report["evaluation"] == {"images": 6, "files": ["val-00000-of-00001.tfrecord"], "all_images": True}
    assert report["readiness"]["edgetpu"]["ready"]
    assert report["latency"]["kind"] == "measured"
    assert report["gate"]["passed"]
    assert report["gate"]["ap_drop"] == pytest.approx(report["float"]["AP"] - report["int8"]["AP"])
    assert (path / "labels.txt").read_text() == "circle\nsquare\nstar\n"
    assert architectures.load(str(path / "architecture.json")) == architectures.load("edgetpu")


def test_the_gate_fails_with_1_and_leaves_the_report(training, folder, tmp_path, monkeypatch, capsys):
    """Conversion is not repeated: the int8 detector is replaced by one that finds nothing."""
    import numpy as np

    from tflite_export.evaluate import Detections

    empty = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    monkeypatch.setattr(exporting, "FileDetector", lambda *args, **kwargs: lambda image: empty)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "labels.txt").write_text("old")
    code = run(
        export, checkpoint_dir=training, eval_data=folder, quantization="float", max_ap_drop=0.01,
        output_dir=out,
    )  # fmt: skip
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
    monkeypatch.setattr(exporting, "FileDetector", lambda *args, **kwargs: None)
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
    assert "is of another network" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"architecture": "edgetup"}, "did you mean 'edgetpu'?"),
        ({"architecture": "cpu", "quantization": "qat"}, "allowed are float, int8"),
        ({"architecture": "cpu", "quantization": "float", "input_type": "uint8"}, "allowed: float"),
        ({"architecture": "cpu", "image_size": 32}, "six feature maps"),
        ({"architecture": "cpu", "num_classes": 0}, "num_classes"),
        ({"architecture": "cpu", "max_ap_drop": 0.1}, "--max_ap_drop needs --eval_data"),
        ({"architecture": "cpu", "eval_data": "/nowhere/*"}, "no TFRecord files match"),
        ({"checkpoint_dir": "/nowhere"}, "no such folder or checkpoint"),
        ({}, "--architecture is needed"),
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
    assert "--calibration_data is needed" in capsys.readouterr().err


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
    assert "use one thread" in capsys.readouterr().err
    assert run(benchmark, model=tflite("int8", "int8", "none"), runs=5, threads=2) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize("command", [compile, benchmark])
def test_a_file_that_is_no_model_gets_one_line_and_2(command, tmp_path, capsys):
    path = tmp_path / "model.tflite"
    path.write_text("not a model at all")
    assert run(command, model=path) == 2
    assert "not a .tflite file" in capsys.readouterr().err


def test_commands_and_devices_agree():
    assert compile.TARGETS == devices.COMPILING
    assert benchmark.DEVICES == devices.MEASURING
