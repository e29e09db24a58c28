"""LiteRT's compiler for a named SoC: coverage, and every way in which it can fail."""

import os
import sys
import types

import pytest

from tflite_export.devices import int8_check, litert_aot
from tflite_export.tflite import model_file

pytest.importorskip("onnxruntime_qnn")


@pytest.fixture
def model(tflite):
    return tflite("int8", "uint8")


def test_the_network_is_offloaded_and_only_post_processing_stays(model, tmp_path):
    made = litert_aot.compile_model(model, tmp_path / "out", "SM8650")
    assert (made.status, made.reason, made.findings) == ("compiled", "", [])
    assert made.result["soc"] == "SM8650"
    assert made.result["partitions"] == 1
    assert set(made.result["on_cpu"]) <= int8_check.CPU_BY_DESIGN
    assert made.result["offloaded"] == made.result["operations"] - sum(made.result["on_cpu"].values())
    assert os.listdir(tmp_path / "out") == [f"{model.stem}_SM8650.tflite"]
    assert "DISPATCH_OP" in model_file.read(made.output).histogram()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import os; os.kill(os.getpid(), 11)", "was killed by signal 11"),
        ("import sys; print('no such SoC'); sys.exit(3)", "exited with code 3: no such SoC"),
        ("import time; time.sleep(60)", "did not finish within 1 s"),
        ("pass", "wrote no file"),
        ("import sys; open(sys.argv[2] + '/x.tflite', 'w').write('x')", "not a .tflite file"),
    ],
)
def test_a_compiler_that_fails_leaves_nothing(script, words, model, tmp_path, monkeypatch):
    monkeypatch.setattr(litert_aot, "_SCRIPT", script)
    monkeypatch.setattr(litert_aot, "TIMEOUT_S", 1 if "sleep" in script else 60)
    made = litert_aot.compile_model(model, tmp_path, "SM8550")
    assert made.status == "failed"
    assert words in made.reason
    assert made.output is None
    assert os.listdir(tmp_path) == []


def test_an_empty_sdk_is_recognised_and_said(model, tmp_path, monkeypatch):
    (tmp_path / "sdk" / "data").mkdir(parents=True)
    found = litert_aot._package
    packages = {litert_aot._SDK: tmp_path / "sdk"}
    monkeypatch.setattr(litert_aot, "_package", lambda name: packages.get(name) or found(name))
    folders, note = litert_aot.libraries()
    assert folders[0].name == "onnxruntime_qnn"
    assert "is installed without its SDK" in note
    monkeypatch.setattr(litert_aot, "_package", packages.get)
    made = litert_aot.compile_model(model, tmp_path / "out", "SM8550")
    assert made.status == "not compiled"
    assert "is installed without its SDK" in made.reason
    assert "mobiledets-tf[hexagon]" in made.reason
    assert not (tmp_path / "out").exists()


def test_an_sdk_with_libraries_comes_first(tmp_path, monkeypatch):
    for folder in ("aarch64-android", "x86_64-linux-clang"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "libQnnHtp.so").touch()
    monkeypatch.setattr(litert_aot, "_package", lambda name: tmp_path)
    assert litert_aot.libraries() == ([tmp_path / "x86_64-linux-clang"], "")


def test_without_any_package_the_command_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", types.SimpleNamespace(__spec__=None))
    monkeypatch.setattr(litert_aot, "_package", lambda name: None)
    with pytest.raises(Exception, match=r"pip install 'mobiledets-tf\[hexagon\]'"):
        litert_aot.libraries()


def test_a_float_file_is_not_int8(tflite):
    findings = int8_check.check(model_file.read(tflite("float", "float")))
    assert len(findings) > 100
    assert all("float32" in finding.reason for finding in findings)
    assert findings[0].block == "stem"
