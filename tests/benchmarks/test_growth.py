"""benchmarks/growth.py: its fits on figures of a known law, and how a call goes on with another's rows."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import growth

    return growth


def _options(folder, runs=6):
    return argparse.Namespace(output=str(folder / "growth.json"), work_dir=str(folder), runs=runs)


def test_a_line_and_a_power_are_found(benchmark):
    x = [1.0, 2.0, 4.0, 8.0]
    line = benchmark.fit(x, [3.0 + 0.5 * v for v in x])["line"]
    assert line == pytest.approx({"slope": 0.5, "intercept": 3.0, "r2": 1.0})
    power = benchmark.fit(x, [3.0 * v**1.5 for v in x])["power"]
    assert power == pytest.approx({"exponent": 1.5, "factor": 3.0, "r2": 1.0})


def test_r2_is_the_share_of_the_variance(benchmark):
    x, y = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 5.0]
    assert benchmark.fit(x, y)["line"]["r2"] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert benchmark.fit(x, [2.0] * 4)["line"]["r2"] == 1.0


def test_every_fit_has_three_rows_or_more(benchmark):
    for table in benchmark.TABLES.values():
        assert all(len(fit.values) >= 3 for fit in table.fits)
        assert len(set(table.values)) == len(table.values)


def test_a_call_measures_what_is_missing(benchmark, tmp_path):
    options, asked = _options(tmp_path), []

    def measure(name, values, given):
        (value,) = values
        asked.append((name, value))
        if len(asked) == 3:
            raise KeyboardInterrupt
        yield value, {"images": int(value), "cpu_s": 2.0 + int(value) / 100, "memory_mib": 300.0}

    with pytest.raises(KeyboardInterrupt):
        benchmark.complete(benchmark.resumed(options), "check", options, measure)
    result = benchmark.resumed(options)
    assert list(result["tables"]["check"]["rows"]) == ["200", "1000"]
    benchmark.complete(result, "check", options, measure)
    assert asked[2:] == [("check", "5000"), ("check", "5000")]
    seconds, memory = json.loads((tmp_path / "growth.json").read_text())["tables"]["check"]["fits"]
    assert (seconds["y"], seconds["x"]) == ("cpu_s", "images")
    assert seconds["line"] == pytest.approx({"slope": 0.01, "intercept": 2.0, "r2": 1.0})
    assert memory["line"]["slope"] == pytest.approx(0.0)


def test_rows_of_other_settings_are_refused(benchmark, tmp_path):
    options = _options(tmp_path)

    def measure(name, values, given):
        yield from ((value, {"images": int(value), "cpu_s": 1.0, "memory_mib": 1.0}) for value in values)

    benchmark.complete(benchmark.resumed(options), "check", options, measure)
    with pytest.raises(SystemExit, match="runs 6, this call 7"):
        benchmark.resumed(_options(tmp_path, runs=7))


def test_one_process_measures_the_steps_of_a_training(benchmark, tmp_path):
    options, asked = _options(tmp_path), []
    table = benchmark.TABLES["training"]

    def measure(name, values, given):
        asked.append(values)
        for value in values:
            depth, side, batch = (float(word) for word in value.split())
            figures = {"depth_multiplier": depth, "pixels": side**2, "batch_size": batch}
            madds = depth**2 * side**2 * batch
            yield value, figures | {"batch_madds": madds, "step_cpu_s": madds / 1e6}

    benchmark.complete(benchmark.resumed(options), "training", options, measure)
    assert asked == [list(table.values)]
    fits = benchmark.resumed(options)["tables"]["training"]["fits"]
    by_pixels = next(fit for fit in fits if fit["x"] == "pixels")
    assert by_pixels["power"] == pytest.approx({"exponent": 1.0, "factor": 0.35**2 * 8e-6, "r2": 1.0})
    assert len(fits[-1]["rows"]) == len(table.values) == 10
