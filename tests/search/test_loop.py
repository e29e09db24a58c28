"""Small real searches: several devices, faults, wrong input, controls."""

import dataclasses
import json
import os
import shutil
from collections import Counter

import numpy as np
import pytest

from mobiledets_tf import architecture
from mobiledets_tf import latency as latencies
from mobiledets_tf.cli import search
from mobiledets_tf.compat import tf
from mobiledets_tf.folder_lock import locked
from mobiledets_tf.models import build_detector
from mobiledets_tf.search.finalists import Finalist
from mobiledets_tf.weights import checkpoints


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
        "search_space": "ibn",
        "train_data": records,
        "latency_model": model,
        "latency_target": 1e7,
        "model_dir": folder,
        "steps": 6,
        "image_size": 96,
        "depth_multiplier": 0.25,
        "batch_size": 4,
        "rl_batch_multiplier": 1,
        "controller_learning_rate": 0.1,
    }
    return ["mobiledets-search", *(f"--{name}={value}" for name, value in (flags | changed).items()), *more]


@pytest.fixture
def runs(monkeypatch):
    """The runs that are finished while it is there."""
    from mobiledets_tf.search import loop

    found, finish = [], loop._Run.finish
    monkeypatch.setattr(loop._Run, "finish", lambda self: found.append(self) or finish(self))
    return found


@pytest.mark.slow
def test_evolution_to_its_end(prepared, tmp_path, runs, capsys):
    """The default preset: known networks first, rounds of a population, finalists trained alone."""
    counts = {"population": 4, "children": 4, "rounds": 2, "finalists": 3, "finalist_steps": 4}
    counts["finalist_generations"] = 2
    images = {"quality_images": 4, "judge_images": 4, "batch_size": 2, "checkpoint_every": 3}
    assert search.run(_flags(prepared, tmp_path, steps=8, **counts, **images)) == 0
    (run,) = runs
    # Finalists are trained and measured with the search's own graphs.
    assert run.shared._train.experimental_get_tracing_count() == 1
    assert run.shared._loss.experimental_get_tracing_count() == 1
    latency = run.search.latency
    report = json.loads((tmp_path / "search_report.json").read_text())
    assert report["schema_version"] == 3 and report["dropped_steps"] == 0
    # The search looked round the best of the known networks, compared alone before its first step.
    compared = json.loads((tmp_path / "finalists" / "finalists.json").read_text())
    promises = {key: np.mean(qualities["steered"]) for key, qualities in compared.items()}
    best = max(run._selection.known["madds"], key=lambda one: promises[f"4 {list(one.decisions)}"])
    (agent,) = run.agents
    assert agent.centres == [best]
    settings = report["settings"]
    assert settings["algorithm"] == "evolution" and settings["devices"][0]["reward"] == "band"

    # The delay ends after two of eight steps; the rounds with the fifth and the last.
    measured = [row.get("measured") for row in report["history"]]
    assert measured == [None] * 4 + [8] + [None] * 2 + [8]
    assert all(abs(row["cost"] / 1e7 - 1) <= 0.03 for row in report["history"])

    (entry,) = report["devices"]
    known = {tuple(row["decisions"]): row["name"] for row in entry["known"]}
    assert set(known.values()) <= set(architecture.PUBLISHED) and len(known) >= 3
    assert [row["centre"] for row in entry["known"]].count(True) == 1
    finalists = {tuple(row["decisions"]): row for row in entry["finalists"]}
    assert len(finalists) == len(entry["finalists"]) == len(known) + 2 * 3
    sources = Counter(row["source"] for row in entry["finalists"])
    assert sources["population"] == sources["generation 2"] == 3
    # The second generation descends from the two networks that were the most promising of the first.
    first = [row for row in entry["finalists"] if row["source"] != "generation 2"]
    parents = sorted(first, key=lambda row: -promises[f"4 {row['decisions']}"])[:2]
    options = [set(both) for both in zip(*(row["decisions"] for row in parents), strict=True)]
    for row in entry["finalists"]:
        if row["source"] == "generation 2":
            kept = [option in both for option, both in zip(row["decisions"], options, strict=True)]
            assert np.mean(kept) > 0.5
    for decisions, row in finalists.items():
        assert row["cost"] == latency.predict_one(decisions)
        assert (row["source"] == f"published {known.get(decisions)}") == (decisions in known)
    assert set(known) <= set(finalists)
    in_band = [row["in_band"] for row in entry["finalists"]]
    assert in_band == sorted(in_band, reverse=True) and all(in_band)
    # The one that was found was trained to the last rung, and is the best of those.
    steps = [row["trained_alone"] for row in entry["finalists"]]
    assert steps[0] == max(steps) and min(steps) > 0
    last = [row["score_alone"] for row in entry["finalists"] if row["trained_alone"] == steps[0]]
    assert len(last) >= 2 and max(last) == last[0] < 0
    assert entry["against_known"]["known"] <= entry["against_known"]["found"] == last[0]
    assert 0 < entry["share_of_space_in_band"] < 0.2
    assert report["reliability"].keys() == {"networks", "tau", "spread", "noise", "blind"}
    # Two or three images steer: one batch has no halves.
    assert report["reliability"]["networks"] == 16 and report["reliability"]["blind"]
    error = capsys.readouterr().err
    assert "does not rank networks reliably" in error and "madds: " in error

    found = architecture.load(tmp_path / "architecture.json")
    assert list(found.origin.decisions) == entry["finalists"][0]["decisions"] == report["decisions"]
    assert architecture.describe(found, 10, 96)["madds"] == report["cost"]
    detector = build_detector(found, 10, 96)
    prefix = checkpoints.restore(detector, tmp_path)
    assert checkpoints.step(prefix) == 8 + steps[0]
    by_name = {weight.name.removesuffix(":0"): weight.numpy() for weight in detector.weights}
    alone = run._selection.weights(Finalist(tuple(report["decisions"]), entry["source"]))
    shared = run.shared.supernet.detector_weights(np.array(report["decisions"]))
    assert set(by_name) - set(alone) == {name for name in by_name if "/moving_" in name}
    for name, value in alone.items():
        np.testing.assert_array_equal(by_name[name], value)
    # They are not the shared ones any more, which are those of the search's end again.
    assert any((alone[name] != shared[name]).any() for name in shared)
    saved = tf.train.load_checkpoint(str(tmp_path / "search-8"))
    for bank in run.shared.supernet.banks:
        rows = saved.get_tensor(f"weights/{bank.label}/.ATTRIBUTES/VARIABLE_VALUE")
        np.testing.assert_array_equal(rows, bank.rows)
    # Statistics were measured: no mean is 0 any more.
    assert all((value != 0).any() for name, value in by_name.items() if name.endswith("moving_mean"))
    assert (tmp_path / "search_report.png").stat().st_size > 1000


@pytest.mark.slow
def test_two_devices_one_trace_and_a_dropped_reward(prepared, tmp_path, monkeypatch, runs, capsys):
    """As TuNAS was released, but for the extraction: the next batch pays, the reward holds the cost."""
    from mobiledets_tf.search.step import SharedStep

    quality, calls = SharedStep.quality, iter(range(100))

    def broken_once(self, batches, decisions, metric):
        values = quality(self, batches, decisions, metric)
        # What `quality` says of a network whose loss is not finite.
        return np.full_like(values, -np.inf) if next(calls) == 1 else values

    flags = {"preset": "tunas", "extraction": "target", "steps": 8, "path_dropout": 0.2, "finalists": 4}
    with monkeypatch.context() as patch:
        patch.setattr(SharedStep, "quality", broken_once)
        more = (f"--latency_model={prepared[2]}", "--latency_target=0.09")
        assert search.run(_flags(prepared, tmp_path, *more, **flags)) == 0

    (run,) = runs
    assert run.shared._train.experimental_get_tracing_count() == 1
    assert run.shared._detect.experimental_get_tracing_count() <= 2
    report = json.loads((tmp_path / "search_report.json").read_text())
    assert [row["step"] for row in report["history"]] == list(range(1, 9))
    assert [row["device"] for row in report["history"]] == ["madds", "edgetpu_pixel4"] * 4
    # Warm-up and delay end after two steps; the second quality of all was not finite.
    assert ["reward" in row for row in report["history"]] == [False, False, True, False] + [True] * 4
    (dropped,) = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert dropped["step"] == 4 and "quality is [-inf]" in dropped["fault"] and len(dropped["images"]) == 8
    error = capsys.readouterr().err
    assert report["dropped_steps"] == 1 and "step 4 dropped: quality is [-inf]" in error
    assert report["reliability"]["blind"] and "does not rank networks reliably" in error
    devices = {entry["device"]: entry for entry in report["devices"]}
    for name, target in (("madds", 1e7), ("edgetpu_pixel4", 0.09)):
        entry = devices[name]
        assert entry["target"] == target and len(entry["best_seen"]) >= 4
        costs, qualities = zip(*((c["cost"], c["quality"]) for c in entry["pareto"]), strict=True)
        assert list(costs) == sorted(costs) and list(qualities) == sorted(qualities)
        found = architecture.load(tmp_path / f"architecture_{name}.json")
        assert list(found.origin.decisions) == entry["decisions"]
        assert len(entry["finalists"]) == 4 and entry["against_known"] is None
        assert {row["trained_alone"] for row in entry["finalists"]} == {0}
        in_band = [row["in_band"] for row in entry["finalists"]]
        assert in_band == sorted(in_band, reverse=True)
    # The policy's likeliest network in the band was among them.
    sources = {row["source"] for row in devices["madds"]["finalists"]}
    assert "policy" in sources and devices["madds"]["in_band"]
    assert (tmp_path / "search_report.png").stat().st_size > 1000
    main = architecture.load(tmp_path / "architecture.json")
    assert architecture.describe(main, 10, 96)["madds"] == report["cost"] == devices["madds"]["cost"]
    checkpoints.restore(build_detector(main, 10, 96), tmp_path)
    assert list((tmp_path / "summaries").glob("events*"))
    # The device of the second model can be reached here: its final population was timed again.
    population = devices["edgetpu_pixel4"]["population"]
    assert len(population) > 4 and all(row["measured"] > 0 for row in population)
    assert devices["edgetpu_pixel4"]["model_error"]["n"] == len(population)
    assert devices["madds"]["model_error"] is None and len(devices["madds"]["population"]) == 4
    assert all(finalist["measured"] > 0 for finalist in devices["edgetpu_pixel4"]["finalists"])
    assert all(finalist.get("measured") is None for finalist in devices["madds"]["finalists"])

    capsys.readouterr()
    assert search.run(_flags(prepared, tmp_path, **flags | {"latency_target": 2e7})) == 2
    error = capsys.readouterr().err
    assert "latency_target': 10000000.0" in error and "latency_target': 20000000.0" in error


@pytest.mark.slow
def test_a_search_names_the_image_that_cannot_be_decoded(prepared, tmp_path, capsys):
    records, folder = tmp_path / "records", tmp_path / "search"
    shutil.copytree(prepared[0], records)
    file = str(records / "train-00000-of-00001.tfrecord")
    examples = [tf.train.Example.FromString(data.numpy()) for data in list(tf.data.TFRecordDataset([file]))]
    for example in examples[4:]:
        encoded = example.features.feature["image/encoded"].bytes_list
        encoded.value[0] = encoded.value[0][: len(encoded.value[0]) // 2]
    with tf.io.TFRecordWriter(file) as writer:
        for example in examples:
            writer.write(example.SerializeToString())
    assert search.run(_flags(prepared, folder, train_data=records)) == 1
    error = capsys.readouterr().err.replace("\r", "\n").splitlines()
    name = examples[4].features.feature["image/source_id"].bytes_list.value[0].decode()
    assert f"image {name!r} (record 5 of {str(records)!r}) cannot be decoded" in error[-1]
    assert not any("Traceback" in line for line in error)
    assert not (folder / "architecture.json").exists()


@pytest.mark.slow
def test_losses_that_are_not_finite_end_the_search(prepared, tmp_path, capsys):
    assert search.run(_flags(prepared, tmp_path, steps=100, learning_rate=1e30, op_warmup_fraction=0)) == 1
    error = capsys.readouterr().err
    assert "steps dropped; allowed: 5%" in error and "_loss is nan" in error
    rows = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert len(rows) >= 2 and len(rows[0]["decisions"][0]) == 30
    assert not (tmp_path / "architecture.json").exists()


@pytest.mark.slow
def test_random_search_stays_in_the_band(prepared, tmp_path):
    """Everywhere in the space; a network of the user's is compared with what was drawn."""
    mine = tmp_path / "mine.json"
    architecture.save(architecture.load("dsp"), mine)
    flags = {"algorithm": "random", "region": "space", "published": "false", "candidates": mine}
    flags |= {"finalist_steps": 0, "finalists": 3, "latency_band": 0.05, "steps": 5, "quality_images": 4}
    folder = tmp_path / "search"
    assert search.run(_flags(prepared, folder, **flags)) == 0
    report = json.loads((folder / "search_report.json").read_text())
    assert all(abs(row["cost"] / 1e7 - 1) <= 0.05 for row in report["history"])
    assert len({row["entropy"] for row in report["history"]}) == 1
    (entry,) = report["devices"]
    assert [row["source"] for row in entry["finalists"]].count("candidate mine") == 1
    assert [row["name"] for row in entry["known"]] == ["mine"] and len(entry["finalists"]) == 4
    assert entry["reward"] == max(finalist["reward"] for finalist in entry["finalists"])
    assert all(row["in_band"] and row["trained_alone"] == 0 for row in entry["finalists"])
    # Not trained alone, it is compared by the quality with shared weights.
    against = entry["against_known"]
    assert against["source"] == "candidate mine" and against["known"] <= against["found"] == entry["quality"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"search_space": "ibn_fused"}, "search space name 'ibn'"),
        ({"depth_multiplier": 0.5}, "search space hash"),
        ({"kernel_sizes": "3"}, "search space hash"),
        ({"kernel_sizes": "4"}, "allowed: 3, 5 or both"),
        ({"image_size": 128}, "latency model is for 96x96"),
        ({"op_warmup_fraction": 0.5}, "rl_delay"),
        ({"train_data": "/nowhere"}, "no TFRecord files match"),
        ({"latency_target": 0}, "allowed: numbers above 0"),
        ({"steer_by": "bord"}, "unknown device to steer by 'bord'"),
        ({"algorithm": "rndom"}, "did you mean 'random'"),
        ({"path_dropout": 1}, "path dropout is 1.0"),
        ({"latency_target": 1e12}, "; its networks cost"),
        ({"reward": "abs"}, "evolution draws networks inside the latency band"),
        ({"latency_band": 1}, "latency band is 1.0"),
        ({"mutation_rate": 0}, "mutation rate is 0.0"),
        ({"candidates": "/nowhere.json"}, "/nowhere.json"),
        ({"region": "knwn"}, "did you mean 'known'"),
        ({"distribution_strategy": "tpu", "tpu": "local"}, "requires --execution=masked"),
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
    assert "allowed: each device once" in capsys.readouterr().err
    assert not folder.exists()


def test_a_model_of_another_schema_is_refused(prepared, tmp_path, capsys):
    content = json.loads(prepared[1].read_text()) | {"schema_version": 99}
    changed = tmp_path / "model.json"
    changed.write_text(json.dumps(content))
    assert search.run(_flags(prepared, tmp_path / "new", latency_model=changed)) == 2
    error = capsys.readouterr().err
    assert "99" in error and str(latencies.model.SCHEMA_VERSION) in error
