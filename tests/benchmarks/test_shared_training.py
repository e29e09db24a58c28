"""The comparison of ways to train shared weights: its draws and its summary, on planted results."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from mobiledets_tf import architecture, latency, search_space
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.search.band import Band

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import shared_training

    return shared_training


@pytest.fixture(scope="module")
def band() -> Band:
    costs: LatencyModel = latency.load("hexagon_ibn_fused_tucker")
    target = costs.predict_one(search_space.encode(costs.space, architecture.load("edgetpu")))
    return Band(costs, target, 0.03)


def test_networks_are_drawn_inside_the_band(benchmark, band):
    for variant in (benchmark.VARIANTS["default"], benchmark.VARIANTS["whole_space"]):
        draw = benchmark.Draws(variant, band, seed=3)
        costs = band.latency.predict(np.stack([draw() for _ in range(20)]))
        assert (abs(costs / band.target - 1) <= 0.03).all()


def test_options_that_were_trained_less_often_become_likelier(benchmark):
    row, even, counts = np.array([0.9, 0.05, 0.05]), np.full(3, 1 / 3), np.array([10.0, 8.0, 0.0])
    kept, often, never = benchmark.Draws._rarer(row, even, counts)
    assert kept > 0.5 and never == pytest.approx(9 * often)


def test_average_is_the_mean_of_what_was_added(benchmark):
    average, rows = benchmark.Average(), np.random.default_rng(0).normal(size=(5, 2, 3))
    for row in rows:
        average.add(list(row))
    np.testing.assert_allclose(average.mean, rows.mean(axis=0))


def test_the_summary_has_tau_by_seed_and_of_the_controls(benchmark, tmp_path):
    networks = [{"alone": 0.1 * n, "params": 10 - n, "decisions": [n]} for n in range(4)]
    for seed, losses in enumerate(([4, 3, 2, 1], [4, 3, 1, 2])):
        row = {"training_loss": 1.0 + seed, "held_out_loss": losses}
        (tmp_path / f"default_{seed}.json").write_text(json.dumps(row))
    options = argparse.Namespace(variants=["default", "balanced"], seeds=2, steps=8, work_dir=str(tmp_path))
    told = benchmark.summary(options, networks)
    assert told["variants"]["default"]["tau"] == pytest.approx([1.0, 2 / 3])
    assert told["variants"]["default"]["training_loss"] == [1.0, 2.0]
    assert told["variants"]["balanced"]["mean_tau"] is None
    assert told["controls"] == {"params": pytest.approx(-1.0)}


def test_what_another_process_works_on_is_left_to_it(benchmark, tmp_path):
    options = argparse.Namespace(variants=["default"], seeds=1, work_dir=str(tmp_path))
    first = benchmark.pending(options)
    assert next(first)[:2] == ("default", 0)
    assert list(benchmark.pending(options)) == []
    first.close()
    assert len(list(benchmark.pending(options))) == 1
