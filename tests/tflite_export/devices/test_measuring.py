"""Devices in a process of their own: time-outs, deaths, samples by the command, checks."""

import itertools
import json
from multiprocessing import process

import numpy as np
import pytest

from mobiledets_tf import latency
from mobiledets_tf.cli import latency as command
from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import samples
from mobiledets_tf.search_space import get_space, sample
from tflite_export import devices
from tflite_export.devices import measuring
from tflite_export.graphs import Settings

SPACE = get_space("ibn", depth_multiplier=0.25)
SMALL = ["--search_space=ibn", "--depth_multiplier=0.25", "--image_size=96", "--num_classes=3"]
SETTINGS = Settings((96, 96), 3)
NETWORK = sample(SPACE, np.random.default_rng(0))


def test_every_device_that_gives_times_answers_the_protocol():
    for name in devices.TIMING:
        module = devices.load(name)
        assert module.KIND in latency.KINDS
        assert module.DEFAULT_VARIANT in module.VARIANTS
        assert callable(module.measure) and callable(module.measure_graph) and callable(module.versions)


def test_a_device_that_hangs_is_cut_off_and_the_next_network_measured():
    endless = measuring.Target("host_cpu", "", SPACE, SETTINGS, (("runs", 10**9),))
    with measuring.Process(endless, timeout_s=1.0) as measure:
        measuring.START_S, before = 8.0, measuring.START_S
        try:
            with pytest.raises(RuntimeError, match="host_cpu did not answer within 1 s"):
                measure(NETWORK)
        finally:
            measuring.START_S = before
        measure.target = measuring.Target("edgetpu", "pixel4", SPACE, SETTINGS)
        assert measure(NETWORK) > 0


def test_a_process_that_dies_is_a_failure_of_its_network():
    target = measuring.Target("edgetpu", "pixel4", SPACE, SETTINGS)
    with measuring.Process(target) as measure:
        first = measure(NETWORK)
        running, _ = measure._running
        running.kill()
        with pytest.raises(RuntimeError, match="the process of edgetpu died"):
            measure(NETWORK)
        assert measure(NETWORK) == first == target.measure(NETWORK)


def test_a_process_that_cannot_start_says_why(monkeypatch):
    """As in a script without `if __name__ == "__main__"`, which the process would run again."""
    with measuring.Process(measuring.Target("edgetpu", "pixel4", SPACE, SETTINGS)) as measure:
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="bootstrapping"):
            patch.setattr(process.current_process(), "_inheriting", True, raising=False)
            measure(NETWORK)
        assert measure(NETWORK) > 0


def test_what_concerns_every_network_ends_the_run():
    with measuring.Process(measuring.Target("edgetpu", "pixel9", SPACE, SETTINGS)) as measure:
        with pytest.raises(InputError, match="pixel9"):
            measure(NETWORK)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Measured and fitted by the command, in two calls of which the first is shorter."""
    folder = tmp_path_factory.mktemp("measured")
    path, output = folder / "samples.jsonl", folder / "model.json"
    for count in (20, 60):
        flags = ["--device=edgetpu", f"--networks={count}", f"--output={path}", *SMALL]
        assert command.run(["mobiledets-latency", "--mode=measure", *flags]) == 0
    assert command.run(["mobiledets-latency", "--mode=fit", f"--samples={path}", f"--output={output}"]) == 0
    return output


def test_samples_say_what_they_are_and_go_on(model):
    header, rows = samples.read(model.with_name("samples.jsonl"))
    assert (header["device"], header["kind"], header["variant"]) == ("edgetpu", "modelled", "pixel4")
    assert len(rows) == 60
    drawn = itertools.islice(samples.proposals(SPACE, 0, True), 60)
    assert [row["decisions"] for row in rows] == [network.tolist() for network in drawn]


def test_a_check_holds_and_a_narrow_bound_does_not(model, capsys):
    check = ["mobiledets-latency", "--mode=check", f"--model={model}", "--networks=8"]
    assert command.run([*check, "--max_error_pct=60"]) == 0
    assert "check passed" in capsys.readouterr().out
    assert command.run([*check, "--max_error_pct=0"]) == 1
    assert "allowed: 0.00 %" in capsys.readouterr().err


def test_a_check_against_samples_measures_nothing(model, capsys, monkeypatch):
    monkeypatch.setattr(measuring, "Process", None)
    path = model.with_name("samples.jsonl")
    check = ["mobiledets-latency", "--mode=check", f"--model={model}", f"--samples={path}"]
    assert command.run([*check, "--max_error_pct=60"]) == 0
    found = samples.load(path, SPACE)
    decisions, times = found.decisions, found.times
    error = np.mean(100 * np.abs(latency.load(model).predict(decisions) / times - 1))
    out = capsys.readouterr().out
    assert "n 60, R2 " in out and f"check passed: mean error {error:.2f} %" in out
    assert command.run([*check, "--max_error_pct=0"]) == 1
    assert "60 networks in the samples; allowed: 0.00 %" in capsys.readouterr().err
    assert command.run([*check, "--band=1000,2000"]) == 2
    assert "no network in the samples takes 1000 to 2000 ms" in capsys.readouterr().err
    assert command.run([*check[:2], "--model=hexagon_ibn", f"--samples={path}"]) == 2


def test_finalists_are_measured_beside_their_prediction(model):
    loaded = latency.load(model)
    (row,) = measuring.measured_beside_predicted(loaded, [NETWORK])
    assert row["predicted"] == loaded.predict_one(NETWORK)
    assert row["measured"] == measuring.Target.of_model(loaded).measure(NETWORK)
    assert row["kind"] == "modelled"
    with pytest.raises(InputError, match="unknown device to measure 'madds'"):
        list(measuring.measured_beside_predicted(latency.madds_model(SPACE, 96, 3), [NETWORK]))


def test_refine_adds_the_candidates_of_a_search(model, tmp_path, capsys):
    networks = [sample(SPACE, np.random.default_rng(i)).tolist() for i in (100, 101)]
    (tmp_path / "search_report.json").write_text(json.dumps({"best": [{"decisions": n} for n in networks]}))
    flags = [f"--samples={model.with_name('samples.jsonl')}", f"--output={tmp_path / 'again.json'}"]
    refine = f"--refine={tmp_path / 'search_report.json'}"
    assert command.run(["mobiledets-latency", "--mode=fit", *flags, refine]) == 0
    assert "2 of 2 networks" in capsys.readouterr().out
    data = json.loads((tmp_path / "again.json").read_text())
    assert data["samples"]["measured"] == 62
    assert data["samples"]["drawn"][1]["sampling"] == "given by search_report.json"


@pytest.mark.parametrize("name", ["cpu", "edgetpu", "dsp", "gpu"])
def test_published_edge_tpu_latencies_are_met(name):
    """Those that the formula was calibrated on, within 3 %."""
    from mobiledets_tf import architecture
    from tflite_export.devices import edgetpu
    from tflite_export.graphs import network_graph

    published = {"edgetpu": 6.9, "dsp": 8.6}
    found = edgetpu.measure_graph(network_graph(architecture.load(name)))
    assert found.kind == "modelled"
    if name in published:
        assert found.median_ms == pytest.approx(published[name], rel=0.03)
