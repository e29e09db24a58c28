"""Vela: what it compiles, and every way in which it can fail."""

import os

import pytest

from tflite_export.devices import ethos_u
from tflite_export.tflite import model_file

pytest.importorskip("ethosu.vela")


def test_a_file_is_compiled_and_its_layers_have_our_blocks(tflite, tmp_path):
    model = tflite("int8", "uint8")
    made = ethos_u.compile_model(model, tmp_path / "out")
    assert (made.status, made.reason, made.findings) == ("compiled", "", [])
    layers = made.result["layers"]
    assert made.result["cycles"] == sum(layer["cycles"] for layer in layers) > 0
    assert {"stem", "block2_layer1", "predictor0_class"} <= {layer["block"] for layer in layers}
    assert os.listdir(tmp_path / "out") == [f"{model.stem}_vela.tflite"]
    assert "ETHOS" in "".join(model_file.read(made.output).histogram()).upper()


def test_a_float_file_has_nothing_for_the_npu(tflite, tmp_path):
    made = ethos_u.compile_model(tflite("float", "float"), tmp_path)
    assert made.status == "failed" or "NPU" in made.findings[0].reason


def test_nothing_on_the_npu_is_no_time(tflite):
    with pytest.raises(RuntimeError, match="no operation of the file runs on the NPU"):
        ethos_u.measure(tflite("float", "float"))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", "was killed by signal 11"),
        ("import sys; print('no such chip'); sys.exit(3)", "exited with code 3: no such chip"),
        ("import time; time.sleep(60)", "did not finish within 1 s"),
        ("pass", "wrote no file"),
    ],
)
def test_a_compiler_that_fails_leaves_nothing(script, words, tflite, tmp_path, monkeypatch):
    monkeypatch.setattr(ethos_u, "_SCRIPT", script)
    monkeypatch.setattr(ethos_u, "TIMEOUT_S", 1 if "sleep" in script else 60)
    made = ethos_u.compile_model(tflite("int8", "uint8"), tmp_path)
    assert (made.status, made.output) == ("failed", None)
    assert words in made.reason
    assert os.listdir(tmp_path) == []
