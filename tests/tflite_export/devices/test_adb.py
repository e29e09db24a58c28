"""A phone over adb, played by a script; what benchmark_model prints, from recorded outputs."""

import os

import pytest

from mobiledets_tf.cli import benchmark
from mobiledets_tf.errors import CheckFailed
from tflite_export.devices import adb

# Recorded by users: https://github.com/tensorflow/tensorflow/issues/42507, shortened.
RECORDED = """STARTING!
Duplicate flags: num_threads
Log parameter values verbosely: [0]
Num threads: [4]
Graph: [/data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite]
Loaded model /data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite
The input model file size (MB): 0.004448
Initialized session in 0.855ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
Peak memory footprint (MB): init=0 overall=12.8672
"""


def test_the_recorded_output():
    latency = adb.parse(RECORDED, threads=4)
    assert (latency.device, latency.kind) == ("adb", "measured")
    assert latency.median_ms == pytest.approx(33.2094)
    assert latency.spread == pytest.approx(1.28 * 450 / 33209.4)
    assert latency.details["statistic"] == "mean"
    assert (latency.details["runs"], latency.details["min_ms"]) == (50, 32.641)
    assert latency.details["init_ms"] == pytest.approx(0.855)
    assert latency.details["memory_mb"] == pytest.approx(12.8672)


def test_newer_versions_print_a_median():
    line = "INFO: count=50 first=1 curr=2 min=3 max=9 avg=33209.4 std=450 p5=32700 median=33100 p95=33900\n"
    latency = adb.parse(RECORDED.replace("Inference timings", f"{line}INFO: Inference timings"), threads=1)
    assert (latency.median_ms, latency.details["statistic"]) == (33.1, "median")
    assert latency.details["mean_ms"] == pytest.approx(33.2094)


def test_an_output_without_timing_is_a_failure():
    with pytest.raises(CheckFailed, match="printed no timing: Failed to load model"):
        adb.parse("STARTING!\nFailed to load model\n", threads=1)


def install(folder, monkeypatch, state="echo device", tool="true", run="cat $(dirname $0)/recorded") -> None:
    (folder / "recorded").write_text(RECORDED)
    script = f"""#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in
  get-state) {state} ;;
  *"test -x"*) {tool} ;;
  *--graph=*) {run} ;;
esac
"""
    (folder / "adb").write_text(script)
    (folder / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def run(model, **flags) -> int:
    return benchmark.run(["x", f"--model={model}", "--device=adb", *(f"--{k}={v}" for k, v in flags.items())])


def test_a_phone_measures_and_is_left_clean(tflite, tmp_path, monkeypatch, capsys):
    install(tmp_path, monkeypatch)
    assert run(tflite("int8", "uint8"), threads=4, variant="gpu") == 0
    assert "33.209 ms (measured on adb gpu, 4 threads, mean of 50 runs" in capsys.readouterr().out
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["get-state", "shell", "push", "shell", "shell"]
    pushed = calls[2].split()[-1]
    assert f"--graph={pushed} --num_threads=4 --num_runs=50 --use_gpu=true" in calls[3]
    assert calls[4] == f"shell rm -f {pushed}"


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ({"state": "echo 'error: no devices/emulators found' >&2; exit 1"}, 2, "no devices/emulators found"),
        ({"state": "echo unauthorized"}, 2, "'unauthorized'"),
        ({"tool": "exit 1"}, 2, "no executable /data/local/tmp/benchmark_model"),
        ({"run": "echo 'Aborted'; exit 134"}, 1, "exited with code 134: Aborted"),
    ],
)
def test_each_fault_is_one_line(script, code, words, tflite, tmp_path, monkeypatch, capsys):
    install(tmp_path, monkeypatch, **script)
    assert run(tflite("int8", "uint8")) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_without_adb_and_with_a_wrong_delegate(tflite, tmp_path, monkeypatch, capsys):
    model = tflite("int8", "uint8")
    assert run(model, variant="dsp") == 2
    assert "unknown variant of adb 'dsp'" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(model) == 2
    assert "adb is not installed" in capsys.readouterr().err
