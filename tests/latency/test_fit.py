"""A fit finds an additive cost again, says how wrong it is, and its file gives the same predictions."""

import itertools
import json
import re

import numpy as np
import pytest

from mobiledets_tf import architecture, latency
from mobiledets_tf.architecture.ops import ConvOp
from mobiledets_tf.architecture.summary import detector_ops
from mobiledets_tf.cli import latency as command
from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import fit, model, samples
from mobiledets_tf.latency.features import op_sums
from mobiledets_tf.latency.held_out import figures
from mobiledets_tf.search_space import decode, get_space

SPACE = get_space("ibn_fused_tucker")
COUNT = 240


def header(**changes):
    return {
        "device": "host_cpu",
        "variant": "",
        "kind": "measured",
        "versions": {"runtime": "1"},
        "search_space": SPACE.options() | {"hash": SPACE.hash},
        "image_size": [320, 320],
        "num_classes": 90,
        "head": "ssdlite",
        "seed": 0,
        "sampling": "spread",
    } | changes


def cost(decisions) -> float:
    """A roofline: an operation takes the longer of its multiply-adds and its bytes."""
    total = 0.0
    for placed in detector_ops(decode(SPACE, decisions)):
        pixels = placed.out_size[0] * placed.out_size[1]
        total += max(placed.madds / 1e9, pixels * placed.op.out_channels / 2e8) + 0.005
    return total


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "samples.jsonl"
    samples.collect(path, header(), samples.proposals(SPACE, 0, True), COUNT, cost)
    return path


def test_sums_are_those_of_the_operations():
    """By an independent walk over the whole detector."""
    features = op_sums(SPACE, (320, 320), 90, "ssdlite")
    networks = list(itertools.islice(samples.proposals(SPACE, 5, True), 4))
    found = features.matrix(np.stack(networks))
    column = features.names.index("full 3x3 s1@40x40.madds")
    whole = [i for i, name in enumerate(features.names) if name.endswith(".madds") and " " not in name]
    for network, row in zip(networks, found, strict=True):
        ops = detector_ops(decode(SPACE, network))
        chosen = [
            p.madds
            for p in ops
            if isinstance(p.op, ConvOp)
            and not p.op.depthwise
            and p.op.kernel_size == 3
            and p.op.strides == 1
            and p.out_size == (40, 40)
        ]
        assert row[column] == pytest.approx(sum(chosen) / 1e6)
        fixed = latency.madds_model(SPACE, 320, 90).intercept
        assert row[whole].sum() * 1e6 + fixed == pytest.approx(sum(p.madds for p in ops))


def test_a_roofline_is_found_again_and_the_error_is_honest(path):
    found = samples.load(path, SPACE)
    fitted = fit.fit(found.header, SPACE, found.decisions, found.times)
    assert fitted.whole.r2 > 0.99
    assert fitted.whole.spearman > 0.99
    fresh = np.stack(list(itertools.islice(samples.proposals(SPACE, 77, True), 60)))
    now = figures(fitted.model.predict(fresh), np.array([cost(network) for network in fresh]))
    assert now.mean_abs_pct_error < 1.6 * fitted.whole.mean_abs_pct_error
    errors = [error for _, error in fitted.curve]
    assert errors[-1] < errors[0]


def test_a_method_may_leave_out_the_numbers_of_operations():
    names = ("full@4x4.count", "full@4x4.madds", "count.madds")
    rng = np.random.default_rng(0)
    matrix = rng.uniform(1, 2, (60, 3))
    method = fit._without_counts(fit.METHODS["ridge"], names)
    intercept, coefficients = method(matrix, 0.5 + matrix @ [0.0, 2.0, 3.0])
    assert coefficients[0] == 0 and intercept == pytest.approx(0.5, abs=0.01)
    assert coefficients[1:] == pytest.approx([2, 3], rel=0.01)


def test_noise_is_not_explained(path):
    found = samples.load(path, SPACE)
    shuffled = np.random.default_rng(0).permutation(found.times)
    assert fit.fit(found.header, SPACE, found.decisions, shuffled).whole.r2 < 0.2


def test_the_command_writes_a_model_that_the_search_reads(path, tmp_path, capsys):
    output = tmp_path / "model.json"
    flags = [f"--samples={path}", f"--output={output}", "--search_space=ibn_fused_tucker"]
    assert command.run(["mobiledets-latency", "--mode=fit", *flags]) == 0
    text = capsys.readouterr().out
    assert "held-out errors, in the band" in text and "host_cpu (measured)" in text
    assert output.with_suffix(".png").stat().st_size > 10_000
    data = json.loads(output.read_text())
    assert data["held_out"]["n"] < data["held_out"]["whole_space"]["n"] == COUNT
    assert f"--samples={path}" in data["command"]
    assert set(data["coefficients"]) == set(op_sums(SPACE, (320, 320), 90, "ssdlite").names)
    loaded = latency.load(output)
    assert (loaded.device, loaded.kind, loaded.unit) == ("host_cpu", "measured", "ms")
    loaded.require_space(SPACE)
    edgetpu = architecture.load("edgetpu")
    assert command.run(["x", "--mode=show", f"--model={output}"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    shown = loaded.predict_one(fit.published_in(SPACE)["edgetpu"])
    assert f"{shown:.4f}" in line
    assert shown == pytest.approx(cost(fit.published_in(SPACE)["edgetpu"]), rel=0.1)
    pair = ["--architecture=edgetpu", "--architecture=dsp", f"--output={tmp_path / 'bars.png'}"]
    assert command.run(["x", "--mode=show", f"--model={output}", *pair]) == 0
    shown = capsys.readouterr().out
    assert "block7" in shown and f"{architecture.describe(edgetpu)['madds']:,}" in shown
    assert (tmp_path / "bars.png").stat().st_size > 10_000


def test_a_model_fitted_before_a_feature_was_there_loads(path, tmp_path):
    """What it was fitted without adds nothing; a name of no feature is refused."""
    output = tmp_path / "model.json"
    assert command.run(["x", "--mode=fit", f"--samples={path}", f"--output={output}"]) == 0
    data, decisions = json.loads(output.read_text()), next(samples.proposals(SPACE, 7, True))
    names = [name for name in data["coefficients"] if ".padded16" in name]
    assert names
    data["coefficients"] = {
        name: 0.0 if name in names else value for name, value in data["coefficients"].items()
    }
    expected = data["intercept"] + sum(
        value * data["coefficients"][name]
        for name, value in zip(
            op_sums(SPACE, (320, 320), 90, "ssdlite").names,
            op_sums(SPACE, (320, 320), 90, "ssdlite").matrix(decisions[None])[0],
            strict=True,
        )
    )
    for name in names:
        del data["coefficients"][name]
    rewrite(output, data)
    assert latency.load(output).predict_one(decisions) == pytest.approx(expected, rel=1e-9)
    data["coefficients"]["full@1x1.guesses"] = 1.0
    rewrite(output, data)
    with pytest.raises(InputError, match="not named after the features 'op_sums'"):
        latency.load(output)


def rewrite(path, data):
    """The file with other content and the hash that belongs to it."""
    path.write_text(json.dumps(data | {"content_hash": model._hash(data)}))


def test_a_network_measured_twice_counts_with_its_lowest_time():
    """What else a machine does makes a time longer, never shorter."""
    first = samples.Samples({}, 2, 0, np.array([[0, 1], [2, 3]], np.int32), np.array([1.5, 2.0]))
    more = np.array([[2, 3], [0, 1], [4, 5]], np.int32)
    second = samples.Samples({}, 3, 0, more, np.array([2.5, 1.0, 3.0]))
    decisions, times = samples.joined([first, second])
    assert dict(zip(map(tuple, decisions.tolist()), times.tolist(), strict=True)) == {
        (0, 1): 1.0,
        (2, 3): 2.0,
        (4, 5): 3.0,
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--search_space=ibn"], "--search_space=ibn: the samples .* are of 'ibn_fused_tucker'"),
        (["--device=hexagon"], "--device=hexagon: the samples .* are of 'host_cpu'"),
        (["--band=900,901"], "no measured network takes 900 to 901 ms"),
        (["--band=3"], "two numbers LOW,HIGH in ms"),
    ],
)
def test_flags_that_do_not_fit_the_samples(path, tmp_path, capsys, flags, message):
    output = tmp_path / "model.json"
    run = ["x", "--mode=fit", f"--samples={path}", f"--output={output}", *flags]
    assert command.run(run) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not output.exists()


def test_three_samples_are_too_few(tmp_path, capsys):
    few = tmp_path / "few.jsonl"
    samples.collect(few, header(), samples.proposals(SPACE, 0, True), 3, cost)
    assert command.run(["x", "--mode=fit", f"--samples={few}", f"--output={tmp_path / 'm.json'}"]) == 2
    assert "3 measured networks are too few for a fit; needed: 50" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "simulated"}, "kind 'simulated'; the first file has 'measured'"),
        ({"versions": {"runtime": "2"}}, "versions"),
    ],
)
def test_samples_of_another_kind_are_not_joined(path, tmp_path, capsys, change, message):
    other = tmp_path / "other.jsonl"
    samples.collect(other, header(**change), samples.proposals(SPACE, 1, True), 2, cost)
    flags = [f"--samples={path}", f"--samples={other}", f"--output={tmp_path / 'm.json'}"]
    assert command.run(["x", "--mode=fit", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_space_whose_content_changed_is_refused(tmp_path):
    changed = header(search_space=SPACE.options() | {"hash": "0" * 16})
    with pytest.raises(InputError, match="hash '0000000000000000' in the file and '74"):
        samples.space_of(changed)


def test_figures_by_hand():
    found = figures(np.array([1.0, 2.0, 4.4, 50.0]), np.array([1.0, 2.0, 4.0, 100.0]), (0.5, 10.0))
    assert (found.n, found.spearman) == (3, pytest.approx(1.0))
    assert found.mean_abs_pct_error == pytest.approx(10 / 3)
    assert found.worst_abs_pct_error == pytest.approx(10.0)
    assert found.r2 == pytest.approx(1 - 0.16 / (np.array([1, 2, 4]).var() * 3))
    assert figures(np.ones(2), np.ones(2)).to_dict()["r2"] is None


def test_a_band_holds_networks_of_the_band_only():
    model = latency.madds_model(SPACE, 320, 90)
    band = (1.0e9, 1.6e9)
    networks = samples.in_band(samples.proposals(SPACE, 0, True), model.predict, band)
    drawn = list(itertools.islice(networks, 50))
    costs = model.predict(np.stack(drawn))
    assert band[0] <= costs.min() and costs.max() <= band[1]
    with pytest.raises(InputError, match="predicts none of .* networks to be inside the band"):
        list(samples.in_band(iter([drawn[0]] * 200_000), model.predict, (1.0, 2.0)))


def test_networks_of_a_report_are_found_wherever_they_stand(tmp_path):
    networks = [network.tolist() for network in itertools.islice(samples.proposals(SPACE, 0, True), 3)]
    pareto = [{"decisions": network} for network in networks]
    report = {"devices": [{"best": {"decisions": networks[0]}}], "pareto": pareto}
    (tmp_path / "r.json").write_text(json.dumps(report))
    np.testing.assert_array_equal(samples.given(tmp_path / "r.json", SPACE), networks)
    for wrong in ({}, {"decisions": [1, 2]}, {"decisions": ["a"]}):
        (tmp_path / "w.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match="networks"):
            samples.given(tmp_path / "w.json", SPACE)
