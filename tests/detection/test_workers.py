"""Training as two worker processes on loopback, against one process with both replicas."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mobiledets_tf.weights import checkpoints

ROOT = Path(__file__).resolve().parents[2]
STEPS = 10

# Follows `two_replicas`.
_MIRRORED = """
from mobiledets_tf.cli import train
from mobiledets_tf.detection import train as loop
kept, batches = [], loop._Run._batches
loop._Run._batches = lambda self: kept.append(batches(self)) or kept[-1]
code = train.run(["train", *sys.argv[1:]])
sys.stdout.flush()
os._exit(code)
"""


@pytest.fixture
def command(tiny):
    """The flags of a small training without its folder."""
    return [
        "--architecture=edgetpu",
        "--image_size=96",
        "--depth_multiplier=0.25",
        "--batch_size=4",
        f"--train_data={tiny}",
        f"--steps={STEPS}",
        "--learning_rate=0.002",
    ]


def start(flags, folder):
    line = [sys.executable, "-m", "mobiledets_tf.cli.train", *flags, f"--model_dir={folder}"]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ends(workers) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, outputs and errors."""
    texts = [worker.communicate(timeout=600) for worker in workers]
    return [worker.returncode for worker in workers], *map(list, zip(*texts, strict=True))


def _at(folder, step: int) -> str:
    """The checkpoint of a step."""
    return next(path for path in checkpoints.kept(folder) if checkpoints.step(path) == step)


@pytest.mark.slow
def test_two_workers_stop_together_go_on_and_end_as_one_process_with_both_replicas(
    command, loopback_hosts, two_replicas, loss_curve, tmp_path
):
    one, two = tmp_path / "one", tmp_path / "two"
    line = [sys.executable, "-c", two_replicas + _MIRRORED, *command, "--mode=train", f"--model_dir={one}"]
    mirrored = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def workers():
        hosts = loopback_hosts(2)
        strategy = ("--distribution_strategy=multi_worker_mirrored", f"--worker_hosts={hosts}")
        return [start([*command, *strategy, f"--task_index={index}"], two) for index in range(2)]

    first = workers()
    while not any(checkpoints.step(path) for path in checkpoints.kept(two)):
        assert all(worker.poll() is None for worker in first), ends(first)
        time.sleep(0.05)
    first[1].send_signal(signal.SIGTERM)
    codes, _, errors = ends(first)
    assert codes == [130, 130], errors
    assert all("run the same command again" in error for error in errors)
    assert 0 < checkpoints.step(two) < STEPS

    codes, outputs, errors = ends(workers())
    assert codes == [0, 0], errors
    # The chief alone evaluates and says what came out.
    assert "best checkpoint by AP" in outputs[0] and "best checkpoint by AP" not in outputs[1]
    codes, _, errors = ends([mirrored])
    assert codes == [0], errors
    assert checkpoints.step(one) == checkpoints.step(two) == STEPS
    # The gradient of a fresh network changes by 0.6 % where its weights change by 1e-7 (kinks of
    # ReLU6, depth): weights are compared early, later on the losses.
    early, fresh = checkpoints.values(_at(one, 2)), checkpoints.values(_at(one, 0))
    for name, value in checkpoints.values(_at(two, 2)).items():
        np.testing.assert_allclose(early[name], value, atol=1e-5, err_msg=name)
    assert any(np.abs(value - fresh[name]).max() > 1e-4 for name, value in early.items())
    curves = [loss_curve(folder / "train") for folder in (one, two)]
    assert set(curves[0]) == set(curves[1]) == set(range(1, STEPS + 1))
    for step, loss in curves[0].items():
        assert curves[1][step] == pytest.approx(loss, rel=0.02), step
    assert np.std(list(curves[0].values())) > 0.1  # Other images would be seen.
    assert not list(two.glob("**/workertemp*")), os.listdir(two)
