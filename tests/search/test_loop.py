"""Small real searches: several devices, faults, wrong input, controls."""

import dataclasses
import json
import os

import numpy as np
import pytest

from mobiledets_tf import architecture
from mobiledets_tf import latency as latencies
from mobiledets_tf.cli import search
from mobiledets_tf.folder_lock import locked


@pytest.fixture(scope="module")
def prepared(sample_records, madds_file, tmp_path_factory):
    """(records, latency model, model of another device) of a small sample."""
    madds, other = latencies.load(madds_file), tmp_path_factory.mktemp("other") / "other.json"
    scale = np.random.default_rng(0).uniform(0.5, 1.5, madds.coefficients.shape) / 1e8
    changed = {"coefficients": madds.coefficients * scale, "intercept": madds.intercept / 1e8}
    latencies.save(
        dataclasses.replace(madds, device="edgetpu", variant="pixel4", kind="modelled", unit="ms", **changed),
        other,
    )
    return sample_records, madds_file, other


def _flags(prepared, folder, *more, **changed):
    records, model, _ = prepared
    flags = {
        "search_space": "ibn", "train_data": records, "latency_model": model, "latency_target": 1e7,
        "model_dir": folder, "steps": 6, "image_size": 96, "depth_multiplier": 0.25, "batch_size": 4,
        "rl_batch_multiplier": 1, "controller_learning_rate": 0.1,
    }  # fmt: skip
    return ["mobiledets-search", *(f"--{name}={value}" for name, value in (flags | changed).items()), *more]


@pytest.mark.slow
def test_two_devices_one_trace_and_a_dropped_reward(prepared, tmp_path, monkeypatch, capsys):
    from mobiledets_tf.search import loop
    from mobiledets_tf.search.step import SharedStep

    runs, quality = [], SharedStep.quality
    finish, calls = loop._Run.finish, iter(range(100))

    def broken_once(self, batches, decisions, metric):
        value = quality(self, batches, decisions, metric)
        return float("nan") if next(calls) == 1 else value

    with monkeypatch.context() as patch:
        patch.setattr(SharedStep, "quality", broken_once)
        patch.setattr(loop._Run, "finish", lambda self: runs.append(self) or finish(self))
        more = (f"--latency_model={prepared[2]}", "--latency_target=0.09")
        assert search.run(_flags(prepared, tmp_path, *more, steps=8, path_dropout=0.2)) == 0

    (run,) = runs
    assert run.shared._train.experimental_get_tracing_count() == 1
    assert run.shared._detect.experimental_get_tracing_count() <= 2
    report = json.loads((tmp_path / "search_report.json").read_text())
    assert [row["step"] for row in report["history"]] == list(range(1, 9))
    assert [row["device"] for row in report["history"]] == ["madds", "edgetpu_pixel4"] * 4
    # Warm-up and delay end after two steps; the second reward of all was not a number.
    assert ["reward" in row for row in report["history"]] == [False, False, True, False] + [True] * 4
    (dropped,) = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert dropped["step"] == 4 and "reward is [nan]" in dropped["fault"] and len(dropped["images"]) == 8
    error = capsys.readouterr().err
    assert report["dropped_steps"] == 1 and "step 4 dropped" in error
    assert report["final_quality"] < 0.01 and "cost alone steered this search" in error
    devices = {entry["device"]: entry for entry in report["devices"]}
    for name, target in (("madds", 1e7), ("edgetpu_pixel4", 0.09)):
        entry = devices[name]
        assert entry["target"] == target and len(entry["best_seen"]) >= 4
        costs, qualities = zip(*((c["cost"], c["quality"]) for c in entry["pareto"]), strict=True)
        assert list(costs) == sorted(costs) and list(qualities) == sorted(qualities)
        found = architecture.load(tmp_path / f"architecture_{name}.json")
        assert list(found.origin.decisions) == entry["decisions"]
    assert (tmp_path / "search_report.png").stat().st_size > 1000
    main = architecture.load(tmp_path / "architecture.json")
    assert architecture.describe(main, 10, 96)["madds"] == report["cost"] == devices["madds"]["cost"]
    assert list((tmp_path / "summaries").glob("events*"))
    # The device of the second model can be reached here: its finalists were timed again.
    assert all(finalist["measured"] > 0 for finalist in devices["edgetpu_pixel4"]["finalists"])
    assert "measured" not in devices["madds"]["finalists"][0]

    capsys.readouterr()
    assert search.run(_flags(prepared, tmp_path, latency_target=2e7, steps=8)) == 2
    error = capsys.readouterr().err
    assert "latency_target': 10000000.0" in error and "latency_target': 20000000.0" in error


@pytest.mark.slow
def test_losses_that_are_not_finite_end_the_search(prepared, tmp_path, capsys):
    assert search.run(_flags(prepared, tmp_path, steps=100, learning_rate=1e30, op_warmup_fraction=0)) == 1
    error = capsys.readouterr().err
    assert "steps dropped, allowed are 5%" in error and "_loss is nan" in error
    rows = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert len(rows) >= 2 and len(rows[0]["decisions"][0]) == 30
    assert not (tmp_path / "architecture.json").exists()


@pytest.mark.slow
def test_random_search_stays_in_the_band(prepared, tmp_path):
    flags = _flags(prepared, tmp_path, algorithm="random", latency_band=0.05, preset="small", steps=5)
    assert search.run(flags) == 0
    report = json.loads((tmp_path / "search_report.json").read_text())
    assert all(abs(row["cost"] / 1e7 - 1) <= 0.05 for row in report["history"])
    assert all(row["entropy"] == 1 for row in report["history"])
    (entry,) = report["devices"]
    assert entry["source"] == "best"
    assert entry["reward"] == max(finalist["reward"] for finalist in entry["finalists"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"search_space": "ibn_fused"}, "search space name 'ibn'"),
        ({"depth_multiplier": 0.5}, "search space hash"),
        ({"kernel_sizes": "3"}, "search space hash"),
        ({"kernel_sizes": "4"}, "allowed: 3, 5 or both"),
        ({"image_size": 128}, "latency model is of 96x96"),
        ({"op_warmup_fraction": 0.5}, "rl_delay"),
        ({"train_data": "/nowhere"}, "no TFRecord files match"),
        ({"latency_target": 0}, "allowed are numbers above 0"),
        ({"steer_by": "bord"}, "unknown device to steer by 'bord'"),
        ({"algorithm": "rndom"}, "did you mean 'random'"),
        ({"path_dropout": 1}, "path dropout is 1.0"),
        ({"distribution_strategy": "tpu", "tpu": "local"}, "needs --execution=masked"),
    ],
)
def test_wrong_input_leaves_nothing(prepared, tmp_path, capsys, changed, message):
    folder = tmp_path / "new"
    assert search.run(_flags(prepared, folder, **changed)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not folder.exists()


def test_a_folder_in_use_is_refused(prepared, tmp_path, capsys):
    with locked(tmp_path):
        assert search.run(_flags(prepared, tmp_path)) == 2
    error = capsys.readouterr().err
    assert "is in use by another run" in error and error.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == [".lock", "settings.json"]


def test_each_model_needs_a_target_and_a_device_comes_once(prepared, tmp_path, capsys):
    folder = tmp_path / "new"
    assert search.run(_flags(prepared, folder, f"--latency_model={prepared[2]}")) == 2
    assert "--latency_model is given 2 times, --latency_target 1 times" in capsys.readouterr().err
    more = (f"--latency_model={prepared[1]}", "--latency_target=3")
    assert search.run(_flags(prepared, folder, *more)) == 2
    assert "allowed: each once" in capsys.readouterr().err
    assert not folder.exists()


def test_a_model_of_another_schema_is_refused(prepared, tmp_path, capsys):
    content = json.loads(prepared[1].read_text()) | {"schema_version": 99}
    changed = tmp_path / "model.json"
    changed.write_text(json.dumps(content))
    assert search.run(_flags(prepared, tmp_path / "new", latency_model=changed)) == 2
    error = capsys.readouterr().err
    assert "99" in error and str(latencies.model.SCHEMA_VERSION) in error
