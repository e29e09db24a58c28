"""The vendor's compiler: its logs as data, and every way in which it can fail."""

import os
from pathlib import Path

import pytest

from tflite_export.devices import edgetpu_compiler, edgetpu_log
from tflite_export.tflite import model_file
from tflite_export.tflite.model_file import ModelFile, Operator

MIB = 2**20


@pytest.fixture
def logs(shared):
    return shared / "reference" / "edgetpu_compiler_logs"


def test_every_log_gives_a_version_and_either_a_table_a_result_or_an_error(logs):
    found = {path.name: edgetpu_log.parse(path.read_text()) for path in logs.glob("v*.txt")}
    assert len(found) == 9
    for name, log in found.items():
        assert log.version.startswith(name[1:].split("_")[0])
        assert log.operators or log.succeeded or log.error


def test_a_success_without_the_table(logs):
    log = edgetpu_log.parse((logs / "v16_stdout_no_s_efficientdet_lite.txt").read_text())
    assert (log.version, log.succeeded, log.error) == ("16.0.384591198", True, None)
    assert (log.milliseconds, log.subgraphs, log.operations) == (1524, 1, 267)
    assert (log.on_edgetpu, log.on_cpu, log.operators) == (264, 3, ())
    assert (log.input_bytes, log.output_bytes) == (round(4.24 * MIB), round(5.57 * MIB))
    assert (log.cached_bytes, log.cache_free_bytes) == (round(4.21 * MIB), round(3.29 * MIB))
    assert log.streamed_bytes == 0
    assert log.output_model == "efficientdet_coral_v2_edgetpu.tflite"
    assert log.operation_log == "efficientdet_coral_v2_edgetpu.log"


def test_a_log_file_alone(logs):
    log = edgetpu_log.parse((logs / "v16_operationlog_efficientdet_lite.txt").read_text())
    assert (log.operations, log.on_edgetpu, log.on_cpu) == (267, 264, 3)
    assert log.succeeded is None
    assert {row.op for row in log.operators if not row.is_mapped} == {"CUSTOM", "DEQUANTIZE"}


def test_one_operation_with_several_statuses(logs):
    log = edgetpu_log.parse((logs / "v15_stdout_s_yolov3tiny_partial.txt").read_text())
    assert (log.on_edgetpu, log.on_cpu, log.cached_bytes) == (2, 34, 3 * 2**10)
    assert [row.count for row in log.operators if row.op == "CONV_2D"] == [1, 12]
    assert len({row.status for row in log.operators if row.op == "QUANTIZE"}) == 3


def test_the_count_on_the_cpu_is_left_out_when_all_is_mapped(logs):
    log = edgetpu_log.parse((logs / "v16_stdout_s_search_delegate_HEAD_yolov7tiny.txt").read_text())
    assert (log.operations, log.on_edgetpu, log.on_cpu) == (246, 246, 0)
    assert log.streamed_bytes == round(41.75 * 2**10)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v2_failure_internal.txt", "Internal compiler error"),
        ("v14_failure_not_quantized.txt", "Model not quantized"),
        ("v16_failure_op_version.txt", "'TRANSPOSE_CONV' version '4'"),
        ("v16_failure_unresolved_custom_op.txt", "unresolved custom op: Atan"),
    ],
)
def test_a_failure_gives_its_reason(logs, name, words):
    log = edgetpu_log.parse((logs / name).read_text())
    assert log.succeeded is False
    assert words in log.error


def test_version_2_prints_what_was_free_before():
    text = (
        "Edge TPU Compiler version 2.0.1\n\nModel compiled successfully in 12 ms.\n"
        "On-chip memory available for caching model parameters: 7.00MiB\n"
        "On-chip memory used for caching model parameters: 3.00MiB\n"
    )
    log = edgetpu_log.parse(text)
    assert (log.cached_bytes, log.cache_free_bytes) == (3 * MIB, 4 * MIB)


@pytest.mark.parametrize("text", ["", "\0\0", "Input size: MiB\nADD  x  Mapped", "Total number of op"])
def test_other_text_gives_an_empty_log(text):
    log = edgetpu_log.parse(text)
    assert (log.version, log.succeeded, log.operators) == (None, None, ())


def test_first_operation_on_the_cpu():
    """Of the two convolutions the first is mapped; the second comes after the h-swish."""
    names = ("CONV_2D", "HARD_SWISH", "CONV_2D", "ADD")
    operators = tuple(Operator(i, name, 1, False, (), ()) for i, name in enumerate(names))
    rows = (
        ("CONV_2D", 1, "Mapped to Edge TPU"),
        ("CONV_2D", 1, "More than one subgraph is not supported"),
        ("ADD", 1, "More than one subgraph is not supported"),
        ("HARD_SWISH", 1, "Operation not supported"),
    )
    log = edgetpu_log.CompilerLog(operators=tuple(edgetpu_log.OperatorRow(*row) for row in rows))
    found, status = edgetpu_compiler.first_on_cpu(log, ModelFile(1, 1, operators, (), (), {}))
    assert (found.index, status) == (1, "Operation not supported")
    assert edgetpu_compiler.first_on_cpu(edgetpu_log.CompilerLog(), ModelFile(1, 1, (), (), (), {})) is None


def install(folder: Path, script: str, monkeypatch) -> None:
    """Puts a shell script in the compiler's place; its $3 is the folder, its $4 the model."""
    path = folder / "edgetpu_compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def model(tmp_path, tflite):
    path = tmp_path / "my model.tflite"
    path.write_bytes(tflite("int8", "uint8").read_bytes())
    return path


def test_without_the_compiler_the_command_is_given(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = edgetpu_compiler.compile_model(model, tmp_path)
    assert answer.status == "not compiled"
    assert "edgetpu_compiler -s -o" in answer.command


def test_a_compiler_that_works(model, tmp_path, monkeypatch):
    table = "CONV_2D    66    Mapped to Edge TPU\nDEQUANTIZE    2    Operation not supported"
    install(
        tmp_path,
        f'echo "Edge TPU Compiler version 16.0.1"; echo "{table}" > "$3/my model_edgetpu.log"\n'
        'cp "$4" "$3/my model_edgetpu.tflite"',
        monkeypatch,
    )
    answer = edgetpu_compiler.compile_model(model, tmp_path / "out")
    assert answer.status == "compiled"
    assert Path(answer.output).read_bytes() == model.read_bytes()
    assert [answer.result[name] for name in ("version", "on_edgetpu", "on_cpu")] == ["16.0.1", 66, 2]
    first = answer.result["first_on_cpu"]
    assert first["op"] == "DEQUANTIZE"
    assert model_file.read(model).operators[first["op_index"]].name == "DEQUANTIZE"
    assert os.listdir(tmp_path / "out") == ["my model_edgetpu.tflite"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "wrote no file"),
        ('cp "$4" "$3/my model_edgetpu.tflite"; echo "Compilation failed!"', "failed"),
        ('head -c 5000 "$4" > "$3/my model_edgetpu.tflite"', "not a .tflite file"),
        ('echo partial > "$3/x"; exit 3', "code 3"),
        ('echo "Model not quantized"; exit 1', "code 1: Model not quantized"),
        ("sleep 60 & wait", "did not finish within 1 s"),
        ("kill -SEGV $$", "signal 11"),
    ],
)
def test_a_compiler_that_fails_leaves_nothing(script, words, model, tmp_path, monkeypatch):
    install(tmp_path, script, monkeypatch)
    monkeypatch.setattr(edgetpu_compiler, "TIMEOUT_S", 1)
    answer = edgetpu_compiler.compile_model(model, tmp_path / "out")
    assert answer.status == "failed"
    assert words in answer.reason
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(("fails", "status"), [(2, "compiled"), (9, "failed")])
def test_an_internal_error_is_tried_again(fails, status, model, tmp_path, monkeypatch):
    install(
        tmp_path,
        f"echo x >> {tmp_path}/calls; if [ $(wc -l < {tmp_path}/calls) -le {fails} ]; then\n"
        'echo "Internal compiler error. Aborting!"; exit 1; fi; cp "$4" "$3/my model_edgetpu.tflite"',
        monkeypatch,
    )
    answer = edgetpu_compiler.compile_model(model, tmp_path / "out")
    assert answer.status == status
    assert answer.result["attempts"] == 3
    assert len((tmp_path / "calls").read_text().splitlines()) == 3
