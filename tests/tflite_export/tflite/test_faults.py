"""Files that are no detector: one clear line, the right exit code, nothing half-written."""

import json
import os

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from mobiledets_tf.cli import benchmark, compile, export

EXTRAS = {"hexagon": "onnxruntime_qnn", "ethos_u": "ethosu.vela"}
TARGETS = ("edgetpu", "hexagon", "ethos_u")


def repacked(path, change) -> bytes:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def open_batch(model) -> None:
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.shape is not None and len(tensor.shape) == 4 and (data is None or not len(data)):
            tensor.shapeSignature = [-1, *tensor.shape[1:]]


def second_input(model) -> None:
    graph = model.subgraphs[0]
    reads = next(op for op in graph.operators if len(op.inputs) == 2)
    graph.inputs = [*graph.inputs, reads.inputs[1]]
    # What made the tensor before is gone: it comes from outside now.
    graph.operators = [op for op in graph.operators if reads.inputs[1] not in op.outputs]


@pytest.fixture(scope="module")
def files(tflite, tmp_path_factory):
    whole = tflite("int8", "uint8")
    contents = {
        "truncated": whole.read_bytes()[: whole.stat().st_size // 2],
        "text": b"this is a text file named model.tflite\n",
        "empty": b"",
        "float": tflite("float", "float").read_bytes(),
        "dynamic": repacked(whole, open_batch),
        "two_inputs": repacked(whole, second_input),
    }
    folder = tmp_path_factory.mktemp("faults")
    paths = {name: folder / f"{name}.tflite" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return paths


def run(command, **flags) -> int:
    return command.run(["test", *(f"--{name}={value}" for name, value in flags.items())])


@pytest.mark.parametrize("kind", ["truncated", "text", "empty"])
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_no_model_is_refused(kind, target, files, tmp_path, capfd):
    assert run(compile, model=files[kind], target=target, output_dir=tmp_path / "out") == 2
    device = "host_cpu" if target == "edgetpu" else target
    assert run(benchmark, model=files[kind], device=device) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(str(files[kind]) in line for line in lines)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "words"), [("float", "float32; allowed: int8"), ("dynamic", "is dynamic")])
@pytest.mark.parametrize("target", TARGETS)
def test_a_float_or_dynamic_file_is_not_ready(kind, words, target, files, tmp_path, capfd):
    if target in EXTRAS:
        pytest.importorskip(EXTRAS[target])
    assert run(compile, model=files[kind], target=target, output_dir=tmp_path / "out", format="json") == 1
    verdict = json.loads(capfd.readouterr().out)
    assert any(words in finding["reason"] for finding in verdict["findings"])
    assert next(finding["block"] for finding in verdict["findings"] if finding["block"]) == "stem"
    made = os.listdir(tmp_path / "out") if (tmp_path / "out").exists() else []
    output = verdict["compiler"]["output"]
    assert made == ([os.path.basename(output)] if output else [])


def test_two_inputs(files, capfd):
    """The CPU can run it, the static check has nothing against it; the simulator needs one."""
    assert run(benchmark, model=files["two_inputs"], runs=2) == 0
    capfd.readouterr()
    pytest.importorskip(EXTRAS["hexagon"])
    assert run(benchmark, model=files["two_inputs"], device="hexagon") == 2
    error = capfd.readouterr().err
    assert "has 2 int8 inputs; expected: 1" in error
    assert error.count("\n") == 1


def test_blocks_of_a_file_of_others(files, capfd):
    assert run(benchmark, model=files["float"], runs=2, blocks=True) == 2
    assert "is not int8 with one scale" in capfd.readouterr().err


@pytest.mark.parametrize("flag", ["calibration_data", "eval_data"])
def test_a_data_set_that_is_not_there(flag, training, tmp_path, capfd):
    flags = {"checkpoint_dir": training, flag: tmp_path / "nowhere", "output_dir": tmp_path / "out"}
    assert run(export, **flags) == 2
    error = capfd.readouterr().err
    assert str(tmp_path / "nowhere") in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == []
