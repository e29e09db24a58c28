"""The static check, the compiler where there is one, and measured latency."""

import os
from pathlib import Path

import pytest

from tflite_export import devices, inspect
from tflite_export.devices import edgetpu, host_cpu
from tflite_export.inspect import ModelFile, Operator, Tensor


def tensor(dtype="INT8", shape=(1, 8, 8, 4), **fields):
    defaults = {"name": "t", "is_dynamic": False, "size": 0, "scales": (0.1,), "zero_points": (0,)}
    return Tensor(dtype=dtype, shape=shape, **(defaults | fields))


def reasons(name, *tensors, version=1, options=None, is_custom=False):
    tensors = tensors or (tensor(),)
    op = Operator(3, name, version, is_custom, tensors, tensors[:1], options)
    conv = Operator(0, "CONV_2D", 1, False, (tensor(),), (tensor(),))
    return [finding.reason for finding in edgetpu.check(ModelFile(1, 1, (conv, op), (), (), {}))]


class Options:
    def __init__(self, **fields):
        self.__dict__.update(fields)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (reasons("HARD_SWISH"), "HARD_SWISH is not supported"),
        (reasons("Atan", is_custom=True), "custom operation Atan"),
        (reasons("CONV_2D", version=6), "version 6 of CONV_2D; allowed: at most 5"),
        (reasons("ADD", tensor("FLOAT32")), "float32"),
        (reasons("ADD", tensor("INT16")), "int16"),
        (reasons("ADD", tensor(scales=())), "without a scale"),
        (reasons("ADD", tensor(is_dynamic=True)), "dynamic"),
        (reasons("ADD", tensor(shape=(2, 8, 8, 4))), "2x8x8x4"),
        (reasons("MAX_POOL_2D", options=Options(fusedActivationFunction=1)), "fused activation"),
        (reasons("CONV_2D", options=Options(dilationHFactor=1, dilationWFactor=2)), "dilation 1x2"),
        (reasons("CONCATENATION", tensor(), tensor(), tensor(size=4)), "a constant among 3 inputs"),
        (reasons("FULLY_CONNECTED", options=Options(weightsFormat=1)), "shuffled"),
        (reasons("STRIDED_SLICE", options=Options(ellipsisMask=1, newAxisMask=0)), "mask"),
        (reasons("SOFTMAX", tensor(shape=(1, 20000))), "20000 elements"),
    ],
)
def test_one_reason_for_one_fault(found, words):
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize("name", ["ADD", "LOGISTIC", "RESHAPE", "DEQUANTIZE"])
def test_supported_operations_pass(name):
    assert reasons(name) == []


def test_the_list_of_operations_is_the_tables(shared):
    """Every operation that the reference table names in our spelling is in the list."""
    rows = (shared / "reference" / "edgetpu_supported_ops.txt").read_text().splitlines()
    names = [word for row in rows if "|" in row and "[" in row for word in row.split("|")[0].split(", ")]
    spelled = {name.strip().replace("_", "").upper() for name in names}
    ours = {name.replace("_", "") for name in edgetpu.SUPPORTED_OPS}
    aliases = {"AVERAGEPOOL2D", "CONV2D", "DEPTHWISECONV2D", "LSTM", "MAXPOOL2D", "RELUN1TO1"}
    assert len(spelled) > 30
    assert spelled - ours - aliases == set()


def test_several_subgraphs_and_no_operation_are_findings_of_the_file():
    found = edgetpu.check(ModelFile(1, 2, (), (), (), {}))
    assert [finding.op_index for finding in found] == [None, None]


def test_our_int8_file_is_ready(tflite):
    assert edgetpu.check(inspect.read(tflite("int8", "uint8"))) == []


def test_a_float_file_is_not_and_each_finding_names_its_block(tflite, network):
    model = inspect.read(tflite("float", "float"))
    found = edgetpu.check(model)
    assert all("float32" in finding.reason for finding in found)
    assert {name for name, _ in network.named_layers()} <= {finding.block for finding in found}
    assert found[0].to_dict() | {"tensor": "", "reason": ""} == {
        "op_index": 0, "op": "CONV_2D", "tensor": "", "block": "stem", "reason": ""
    }  # fmt: skip


def test_a_float_input_alone_is_found(tflite):
    (finding,) = edgetpu.check(inspect.read(tflite("int8", "float")))
    assert (finding.op, finding.op_index) == ("QUANTIZE", 0)


def compiler(folder: Path, script: str, monkeypatch) -> None:
    path = folder / "edgetpu_compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "my model.tflite"
    path.write_bytes(b"model")
    return path


def test_without_the_compiler_the_command_is_given(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = edgetpu.compile_model(model, tmp_path)
    assert answer.status == "not compiled"
    assert "edgetpu_compiler -s -o" in answer.command


def test_a_compiler_that_works(model, tmp_path, monkeypatch):
    script = 'echo "Edge TPU Compiler version 16"; cp "$4" "$3/my model_edgetpu.tflite"'
    compiler(tmp_path, script, monkeypatch)
    answer = edgetpu.compile_model(model, tmp_path / "out")
    assert answer.status == "compiled"
    assert Path(answer.output).read_bytes() == b"model"
    assert "version 16" in answer.log
    assert os.listdir(tmp_path / "out") == ["my model_edgetpu.tflite"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "wrote no file"),
        ('echo partial > "$3/x"; exit 3', "code 3"),
        ("sleep 60 & wait", "did not end within 1 s"),
        ("kill -SEGV $$", "code -11"),
    ],
)
def test_a_compiler_that_fails_leaves_nothing(script, words, model, tmp_path, monkeypatch):
    compiler(tmp_path, script, monkeypatch)
    monkeypatch.setattr(edgetpu, "COMPILER_TIMEOUT_S", 1)
    answer = edgetpu.compile_model(model, tmp_path / "out")
    assert answer.status == "failed"
    assert words in answer.reason
    assert os.listdir(tmp_path / "out") == []


def test_host_latency_is_measured(tflite):
    latency = host_cpu.measure(tflite("int8", "uint8"), threads=1, runs=20)
    fields = latency.to_dict()
    assert (fields["kind"], fields["device"], fields["runs"]) == ("measured", "host_cpu", 20)
    times = [fields[name] for name in ("min_ms", "p10_ms", "median_ms", "p90_ms", "max_ms")]
    assert times == sorted(times)
    assert times[0] > 0
    assert fields["warm_up_runs"] >= host_cpu.WARM_UP_RUNS


def test_every_named_device_has_a_module_that_answers():
    assert all(callable(devices.load(name).measure) for name in devices.MEASURING)
    assert all(callable(devices.load(name).check) for name in devices.COMPILING)
