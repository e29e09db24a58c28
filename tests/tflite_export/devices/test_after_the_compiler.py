"""A compiled file gets back what the compiler takes away; the compiler's own count is the verdict."""

import json
import os

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from mobiledets_tf.cli import benchmark, compile, import_weights
from tflite_export.tflite import flatbuffer, layout, metadata, model_file, runtime

LABELS = ["circle", "square", "star"]
HEAD = "Edge TPU Compiler version 16.0.384591198"


def stripped(data: bytes) -> bytes:
    """As compilers leave a file: tensors numbered anew, outputs in another order, no metadata."""
    model = flatbuffer.unpack(data)
    graph = model.subgraphs[0]
    moved = {index: len(graph.tensors) - 1 - index for index in range(len(graph.tensors))}
    graph.tensors = graph.tensors[::-1]
    for op in graph.operators:
        op.inputs = [moved.get(int(index), -1) for index in op.inputs]
        op.outputs = [moved[int(index)] for index in op.outputs]
    graph.inputs = [moved[int(index)] for index in graph.inputs]
    graph.outputs = [moved[int(index)] for index in graph.outputs][::-1]
    model.signatureDefs, model.metadata = None, None
    return flatbuffer.pack(model)


@pytest.fixture(scope="module")
def made(tflite, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "detector.tflite"
    path.write_bytes(metadata.add(tflite("int8", "uint8").read_bytes(), LABELS, "edgetpu", 0.25, "1"))
    return path


def table(model, unmapped=()):
    """The compiler's table: operations that end a detector stay on the CPU, and so many of `unmapped`."""
    counts = model.histogram()
    rows = []
    for name, count in counts.items():
        left = dict(unmapped).get(name, 0)
        if name in ("DEQUANTIZE", model_file.CUSTOM_OP):
            kind = "CUSTOM" if name == model_file.CUSTOM_OP else name
            rows.append(f"{kind}    {count}    Operation is working on an unsupported data type")
            continue
        rows.append(f"{name}    {count - left}    Mapped to Edge TPU")
        if left:
            rows.append(f"{name}    {left}    More than one subgraph is not supported")
    return rows


@pytest.fixture
def compiler(tmp_path, monkeypatch, made):
    """Puts a script in the compiler's place that writes a stripped file and these lines."""

    def make(lines, code=0):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "made").write_bytes(stripped(made.read_bytes()))
        (folder / "log").write_text("\n".join([HEAD, *lines]) + "\n")
        script = folder / "edgetpu_compiler"
        script.write_text(
            f'#!/bin/sh\ncat "{folder}/log"\n[ {code} = 0 ] || exit {code}\n'
            f'cp "{folder}/made" "$3/$(basename "$4" .tflite)_edgetpu.tflite"\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return make


def run(command, **flags) -> int:
    return command.run(["test", *(f"--{name}={value}" for name, value in flags.items())])


def test_a_compiled_file_has_labels_signature_and_order_again(compiler, made, tmp_path, capsys, clients):
    compiler(table(model_file.read(made)))
    assert run(compile, model=made, output_dir=tmp_path / "out", format="json") == 0
    output = tmp_path / "out" / "detector_edgetpu.tflite"
    assert json.loads(capsys.readouterr().out)["compiler"]["output"] == str(output)
    data = output.read_bytes()
    assert metadata.labels_of(data) == LABELS
    before, after = model_file.read(made), model_file.read(output)
    assert after.signatures == before.signatures
    assert [tensor.name for tensor in after.outputs] == [tensor.name for tensor in before.outputs]
    assert metadata._data(flatbuffer.unpack(data)) == metadata._data(flatbuffer.unpack(made.read_bytes()))
    # It runs, and Coral's API reads the same from both.
    image = np.random.default_rng(0).integers(0, 256, before.inputs[0].shape).astype(np.uint8)
    found = []
    for path in (made, output):
        interpreter = runtime.open_model(path)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        found.append((clients.pycoral(interpreter), clients.frigate(interpreter)))
    assert found[0] == found[1] and found[0][0]


def test_the_compiler_s_count_decides(compiler, made, tmp_path, capsys, monkeypatch):
    """Our check refuses a version of an operation; a compiler that maps it has the last word."""
    model, newer = tmp_path / "newer.tflite", flatbuffer.unpack(made.read_bytes())
    for code in newer.operatorCodes:
        code.version = max(code.version, 9 * (code.builtinCode == schema.BuiltinOperator.ADD))
    model.write_bytes(flatbuffer.pack(newer))
    compiler(table(model_file.read(model)))
    assert run(compile, model=model, output_dir=tmp_path / "out", format="json") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["ready"] and verdict["findings"] == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(compile, model=model) == 1


def test_what_the_compiler_leaves_out_is_shown_with_its_reason(compiler, made, tmp_path, capsys):
    compiler(table(model_file.read(made), [("ADD", 4), ("CONV_2D", 20)]))
    assert run(compile, model=made, output_dir=tmp_path / "out") == 1
    text = capsys.readouterr().out
    assert "NOT ready" in text
    assert "the compiler left 20 on the CPU: More than one subgraph is not supported" in text
    assert "the compiler left 4 on the CPU" in text


@pytest.mark.parametrize("line", ["Model not quantized", "terminate called: std::bad_alloc"])
def test_the_line_with_the_reason_is_shown(compiler, made, tmp_path, capsys, line):
    compiler([line], code=1)
    assert run(compile, model=made, output_dir=tmp_path / "out") == 1
    assert f"edgetpu_compiler exited with code 1: {line}" in capsys.readouterr().out


def test_labels_go_into_any_detector(tflite, shared, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    labels = tmp_path / "labels.txt"
    labels.write_text("0 cat\n1 dog\n")
    path = shared / "reference" / "coral_detector" / "ssdlite_mobiledet_dog_vs_cat.tflite"
    if not path.is_file():
        pytest.skip("no detector of others")
    assert run(compile, model=path, labels=labels, output_dir=tmp_path / "out", format="json") == 0
    output = tmp_path / "out" / f"{path.stem}_labels.tflite"
    assert json.loads(capsys.readouterr().out)["model"] == str(output)
    assert metadata.labels_of(output.read_bytes()) == ["cat", "dog"]
    assert model_file.read(output).histogram() == model_file.read(path).histogram()
    assert run(compile, model=path, labels=tmp_path / "none.txt") == 2
    assert run(compile, model=tflite("int8", "int8", "none"), labels=labels) == 2
    assert "--labels requires TFLite_Detection_PostProcess" in capsys.readouterr().err


@pytest.fixture
def compiled(tmp_path, made):
    """The network as one custom operation, as the compiler leaves it."""
    model = flatbuffer.unpack(made.read_bytes())
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM, 32
    code.customCode, code.version = b"edgetpu-custom-op", 1
    graph = model.subgraphs[0]
    op = schema.OperatorT()
    op.opcodeIndex = len(model.operatorCodes)
    last = layout.post_process_of(model)
    op.inputs, op.outputs = graph.inputs, last.inputs[:2]
    op.customOptions = np.zeros(16, np.uint8)
    model.operatorCodes, graph.operators = [*model.operatorCodes, code], [op, last]
    path = tmp_path / "detector_edgetpu.tflite"
    path.write_bytes(flatbuffer.pack(model))
    return path


def test_a_compiled_file_is_called_so(compiled, tmp_path, capsys):
    calls = [
        (compile, {"model": compiled}),
        (compile, {"model": compiled, "target": "ethos_u"}),
        (benchmark, {"model": compiled}),
        (benchmark, {"model": compiled, "device": "hexagon"}),
        (import_weights, {"weights": compiled, "architecture": "edgetpu", "output_dir": tmp_path / "out"}),
    ]
    for command, flags in calls:
        assert run(command, **flags) == 2
        error = capsys.readouterr().err
        assert "is already compiled for the Edge TPU" in error and error.count("\n") == 1
