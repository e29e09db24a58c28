"""benchmarks/gpu.py at its tiny size: its figures, its budget, and what it says where there is no GPU."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
PARTS = [
    "device",
    "data",
    "train_float32",
    "train_mixed",
    "search_sliced",
    "search_masked_xla",
    "time_to_ap",
]
TRAINING = {
    "first_step_s",
    "first_loss",
    "step_images_per_s",
    "images_per_s",
    "waiting_share",
    "input_images_per_s",
    "input_over_step",
    "peak_gpu_mib",
}


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def _run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_parts_share_what_is_left(benchmark):
    assert benchmark.share(480.0, [1.0, 2.0, 1.0]) == 120.0
    # The first part took 20 of its 120 seconds.
    assert benchmark.share(460.0, [2.0, 1.0]) == pytest.approx(306.67, abs=0.01)
    assert benchmark.share(153.0, [1.0]) == 153.0


def test_a_part_keeps_its_rows_when_it_is_killed(benchmark):
    program = 'import time; print(\'chatter\'); print(\'{"row": "a", "x": 1}\', flush=True); time.sleep(60)'
    part, kept = {"state": "", "rows": {}}, []
    start = time.monotonic()
    benchmark._run([sys.executable, "-c", program], 3.0, part, lambda: kept.append(dict(part["rows"])))
    assert part["state"] == "out of time" and part["rows"] == {"a": {"x": 1}} == kept[-1]
    assert 3.0 <= part["seconds"] <= time.monotonic() - start < 30.0


def test_a_row_grows_and_a_failure_is_named(benchmark):
    row = '{{"row": "a", "{}": 1}}'
    program = f"import sys; print('{row.format('x')}'); print('{row.format('y')}'); sys.exit(3)"
    part = {"state": "", "rows": {}}
    benchmark._run([sys.executable, "-c", program], 60.0, part, lambda: None)
    assert part["state"] == "failed with exit code 3" and part["rows"] == {"a": {"x": 1, "y": 1}}


def test_budget_ends_every_part(tmp_path):
    # Only the last part gets as much as a part needs to be started; it would load TensorFlow for longer.
    done = _run("--tiny", "--budget_s=2.2", f"--output={tmp_path / 'kept.json'}")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["parts"]) == PARTS
    assert {part["state"] for part in result["parts"].values()} == {"out of time"}
    assert 2.2 <= result["seconds"]
    assert [name for name, part in result["parts"].items() if part["seconds"]] == ["time_to_ap"]
    assert json.loads((tmp_path / "kept.json").read_text())["parts"] == result["parts"]


def test_budget_is_positive():
    done = _run("--tiny", "--budget_s=-1")
    assert done.returncode == 2 and "--budget_s=-1.0" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_without_a_gpu_it_says_so():
    done = _run()
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.splitlines()[-1].startswith("TensorFlow sees no GPU: mobiledets-doctor")


@pytest.mark.slow
def test_tiny_measures_everything():
    done = _run("--tiny", "--budget_s=1800")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    parts = result["parts"]
    assert list(parts) == PARTS
    assert {part["state"] for part in parts.values()} == {"done"}
    for name in ("train_float32", "train_mixed"):
        (row,) = parts[name]["rows"].values()
        assert set(row) == TRAINING and row.pop("peak_gpu_mib") is None
        assert 0.0 <= row.pop("waiting_share") < 1.0
        assert all(math.isfinite(value) and value > 0 for value in row.values()), row
    float32, mixed = (
        parts[f"train_{name}"]["rows"]["batch 2"]["first_loss"] for name in ("float32", "mixed")
    )
    # bfloat16 has eight significant bits: the loss differs, but not by much.
    assert float32 != mixed == pytest.approx(float32, rel=0.01)
    sliced, masked = (parts[f"search_{name}"]["rows"]["step"] for name in ("sliced", "masked_xla"))
    assert masked["first_loss"] == pytest.approx(sliced["first_loss"], rel=1e-5)
    assert min(sliced["steps_per_s"], masked["steps_per_s"]) > 0
    target = parts["time_to_ap"]["rows"]["target"]
    assert target["reached"] and target["step"] == 1 and target["seconds"] > 0
