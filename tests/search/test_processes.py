"""Searches as processes: killed and gone on, stopped by a signal, two workers on loopback."""

import json
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


@pytest.fixture(scope="module")
def command(sample_records, madds_file, space_flags):
    """The command line of a small search without its folder."""
    return [
        *space_flags,
        f"--train_data={sample_records}",
        f"--latency_model={madds_file}",
        "--latency_target=1e7",
        "--batch_size=2",
        "--rl_batch_multiplier=1",
        "--deterministic",
        "--checkpoint_every=4",
    ]


# A small evolution with warm-up, and finalists that are trained alone.
_EVOLUTION = (
    "--steps=24",
    "--op_warmup_fraction=0.1",
    "--population=3",
    "--children=3",
    "--rounds=3",
    "--finalists=3",
    "--finalist_generations=2",
    "--finalist_steps=6",
    "--quality_images=2",
    "--judge_images=4",
)
# As TuNAS was released, but for the metric: the next batch pays, the reward holds the cost.
_TUNAS = ("--preset=tunas", "--op_warmup_fraction=0.1", "--quality=AP50")
# Known networks compared before the search, and finalists after it, by training them alone.
_COMPARED = (
    "--region=known",
    "--candidates=edgetpu,dsp",
    "--finalists=2",
    "--finalist_generations=2",
    "--finalist_steps=2",
    "--judge_images=4",
)


_COMMAND = ("-m", "mobiledets_tf.cli.search")


def _start(arguments, folder, program=_COMMAND):
    line = [sys.executable, *program, *arguments, f"--model_dir={folder}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(line, cwd=ROOT, **quiet)


def _state(folder):
    return json.loads((folder / "search_state.json").read_text())


def _wait_for_steps(process, folder, steps):
    history = folder / "history.jsonl"
    while process.poll() is None:
        if history.exists() and history.read_text().count("\n") >= steps:
            return
        time.sleep(0.02)
    raise AssertionError(process.stderr.read())


def _trainings(folder):
    path = folder / "finalists" / "finalists.json"
    return len(json.loads(path.read_text())) if path.exists() else 0


def _wait_for_finalists(process, folder, trainings):
    while process.poll() is None:
        if _trainings(folder) >= trainings:
            return
        time.sleep(0.02)
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
def test_killed_and_stopped_it_ends_as_if_nothing_had_happened(command, tmp_path):
    arguments, whole, broken = [*command, *_EVOLUTION], tmp_path / "whole", tmp_path / "broken"
    left_alone = _start(arguments, whole)
    # Among the known networks, of which there are two to four, in the steps, and in the second generation of
    # finalists, of which each has three.
    comparing = _start(arguments, broken)
    _wait_for_finalists(comparing, broken, 1)
    comparing.send_signal(signal.SIGTERM)
    assert comparing.wait() == 130 and not (broken / "history.jsonl").exists()
    killed = _start(arguments, broken)
    _wait_for_steps(killed, broken, 7)
    known = _trainings(broken)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    stopped = _start(arguments, broken)
    _wait_for_steps(stopped, broken, 11)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == 130
    assert "run the same command again" in stopped.stderr.read()
    assert 11 <= _state(broken)["step"] < 24
    comparing = _start(arguments, broken)
    _wait_for_finalists(comparing, broken, known + 4)
    comparing.send_signal(signal.SIGTERM)
    assert comparing.wait() == 130
    assert not (broken / "architecture.json").exists()
    assert _start(arguments, broken).wait() == 0 == left_alone.wait()
    one, other = _state(whole), _state(broken)
    assert set(one) == {"schema_version", "step", "dropped", "agents", "archives"}
    assert one == other and len(one["agents"]["madds"]["members"]) == 3
    names = ("architecture.json", "history.jsonl", "policy.jsonl", "finalists/finalists.json")
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    reports = [json.loads((folder / "search_report.json").read_text()) for folder in (whole, broken)]
    assert reports[0] == reports[1] and len(reports[0]["devices"][0]["finalists"]) >= 2 + 2 * 3
    weights = [checkpoints.values(folder) for folder in (whole, broken)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        np.testing.assert_array_equal(weights[1][name], value, err_msg=name)
    assert len(list(broken.glob("search-*.index"))) == 1


# Follows `two_replicas`.
_MIRRORED = """
from mobiledets_tf.cli import search
from mobiledets_tf.search import loop
kept, finish = [], loop._Run.finish
loop._Run.finish = lambda self: kept.append(self) or finish(self)
code = search.run(["search", *sys.argv[1:]])
sys.stdout.flush()
os._exit(code)
"""

# The other worker ends long before the report is there.
_SLOW_CHIEF = """
import sys, time
from mobiledets_tf.cli import search
from mobiledets_tf.search import plots
draw = plots.draw
plots.draw = lambda *arguments: time.sleep(10) or draw(*arguments)
sys.exit(search.run(["search", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_two_workers_one_killed_do_what_one_process_with_both_replicas_does(
    command, loopback_hosts, two_replicas, tmp_path
):
    from mobiledets_tf.compat import tf

    arguments = [*command, *_TUNAS, *_COMPARED, "--steps=6", "--checkpoint_every=2"]
    one, two = tmp_path / "one", tmp_path / "two"
    line = [sys.executable, "-c", two_replicas + _MIRRORED, *arguments, f"--model_dir={one}"]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True, env=os.environ, timeout=800)

    def workers():
        strategy = ("--distribution_strategy=multi_worker_mirrored", f"--worker_hosts={loopback_hosts(2)}")
        return [
            _start((*arguments, *strategy, f"--task_index={index}"), two, program)
            for index, program in enumerate([("-c", _SLOW_CHIEF), _COMMAND])
        ]

    chief, other = workers()
    _wait_for_steps(chief, two, 2)
    other.kill()
    assert chief.wait(200) == 1
    assert "another worker has stopped" in chief.stderr.read().splitlines()[-1]
    last = workers()
    assert [worker.wait(800) for worker in last] == [0, 0], [w.stderr.read()[-2000:] for w in last]
    logits = [np.array(_state(f)["agents"]["madds"]["controller"]["logits"]) for f in (one, two)]
    assert np.abs(logits[0]).max() > 0
    np.testing.assert_allclose(*logits, atol=1e-5)
    readers = [tf.train.load_checkpoint(str(folder / "search-6")) for folder in (one, two)]
    names = [n for n in readers[0].get_variable_to_shape_map() if n.endswith("VARIABLE_VALUE")]
    assert {name.split("/")[0] for name in names} == {"momentum", "weights"}
    for name in names:
        np.testing.assert_allclose(*(reader.get_tensor(name) for reader in readers), atol=1e-5, err_msg=name)
    judged = [json.loads((folder / "finalists" / "finalists.json").read_text()) for folder in (one, two)]
    assert judged[0].keys() == judged[1].keys() and len(judged[0]) >= 2
    for key, qualities in judged[0].items():
        for kind, values in qualities.items():
            np.testing.assert_allclose(judged[1][key][kind], values, rtol=1e-4, err_msg=key)
