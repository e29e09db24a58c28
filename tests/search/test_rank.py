"""The comparison of shared weights with training alone: rank correlations by hand, draws, wrong inputs."""

import dataclasses
import json

import numpy as np
import pytest

from mobiledets_tf import architecture, latency
from mobiledets_tf.cli import rank as command
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import write_json
from mobiledets_tf.search import rank, rank_report, state
from mobiledets_tf.search.schedule import Schedule
from mobiledets_tf.search.settings import Objective, Search, fingerprint
from mobiledets_tf.search_space import get_space

_TARGET = 1e7
_ABOUT = {"metric": "loss", "alone_metric": "AP"}


@pytest.fixture(scope="module")
def model():
    return latency.madds_model(get_space("ibn", depth_multiplier=0.25), (96, 96), 10)


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "latency_model.json"
    latency.save(model, path)
    return path


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A folder that looks like converted data."""
    folder = tmp_path_factory.mktemp("records")
    for split in ("train", "val"):
        (folder / f"{split}-00000-of-00001.tfrecord").touch()
    (folder / "label_map.pbtxt").write_text('item { id: 1 name: "one" }\n')
    return folder


def _search(model, folder, records, **changed) -> Search:
    objective = Objective(model, _TARGET)
    return Search(str(records), str(folder), (objective,), Schedule(steps=10), **changed)


@pytest.fixture
def search_dir(model, records, tmp_path):
    folder = tmp_path / "search"
    write_json(folder / "settings.json", _search(model, folder, records).settings())
    write_json(folder / "search_state.json", {"schema_version": state.SCHEMA_VERSION, "step": 10})
    return folder


def _settings(search_dir, **changed):
    settings, space = rank.read_search(search_dir)
    return settings | changed, space


def _report(shared, alone, **controls):
    """The report on networks with one quality, or one for each batch and seed."""
    shared, alone = (np.array(values, np.float64).reshape(len(values), -1) for values in (shared, alone))
    return rank_report.report(np.zeros((len(shared), 2), int), shared, alone, controls, _ABOUT)


def test_tau_counts_pairs():
    # Of six pairs five are in the same order, one in the other.
    summary = _report([1, 2, 3, 4], [10, 20, 40, 30])
    assert summary["kendall_tau"] == pytest.approx((5 - 1) / 6)
    assert summary["spearman_rho"] == pytest.approx(0.8)
    # Of 24 orders of four networks one has tau 1 and three have 2/3; as many have -2/3 or less.
    assert summary["kendall_p"] == pytest.approx(8 / 24)
    assert _report([1, 2, 3], [3, 2, 1])["kendall_tau"] == pytest.approx(-1)


def test_a_network_counts_with_the_mean_of_its_seeds():
    summary = _report([1, 2, 3], [[0, 4], [3, 3], [9, 1]])
    assert [row["alone"] for row in summary["networks"]] == [2, 3, 5]
    assert [row["alone_by_seed"] for row in summary["networks"]] == [[0, 4], [3, 3], [9, 1]]
    assert summary["kendall_tau"] == pytest.approx(1)
    # The second seed ranks the networks the other way round.
    assert summary["alone_reliability"] == {"seeds": 2, "tau": pytest.approx(-1)}


def test_reliability_of_seeds_is_the_mean_over_pairs():
    # Seeds 1 and 2 agree; seed 3 orders one of three pairs otherwise: tau 1, 1/3, 1/3.
    alone = np.array([[1, 10, 2], [2, 20, 1], [3, 30, 3]], np.float64)
    assert rank_report.seeds_tau(alone) == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert rank_report.seeds_tau(alone[:, :1]) is None
    # A seed without any order leaves the other pair.
    assert rank_report.seeds_tau(np.column_stack([alone[:, :2], np.zeros(3)])) == pytest.approx(1)


def test_interval_of_a_perfect_and_of_a_random_ranking():
    order = np.arange(24.0)
    assert rank_report.tau_interval(order, order) == pytest.approx([1, 1])
    assert rank_report.tau_interval(order, -order) == pytest.approx([-1, -1])
    low, high = rank_report.tau_interval(order, np.random.default_rng(0).permutation(24).astype(float))
    # The standard deviation of tau of 24 networks without any relation is 0.15.
    assert -0.7 < low < 0 < high < 0.7 and 0.3 < high - low < 1
    again = np.random.default_rng(0).permutation(24).astype(float)
    assert rank_report.tau_interval(order, again) == [low, high]
    assert rank_report.tau_interval(order, np.zeros(24)) is None


def test_controls_are_held_against_training_alone():
    summary = _report([3, 1, 2, 4], [1, 2, 3, 4], params=[5, 6, 7, 8], madds=[9, 9, 9, 9])
    controls = summary["controls"]
    assert controls["params"] == {"kendall_tau": 1.0, "kendall_tau_interval": [1.0, 1.0]}
    assert controls["madds"] == {"kendall_tau": None, "kendall_tau_interval": None}
    assert [row["params"] for row in summary["networks"]] == [5, 6, 7, 8]


def test_controls_are_the_sizes_of_the_networks(model, search_dir):
    settings, space = _settings(search_dir)
    band = rank.search_band(settings, space, model)
    networks = rank.sample_networks(band, rank.policies(settings, band, "region"), 3, 0)
    sizes = rank_report.sizes(settings, space, networks)
    assert sizes["madds"] == model.predict(networks).astype(int).tolist()
    assert len(sizes["params"]) == 3


def test_reliability_of_shared_weights():
    rng = np.random.default_rng(0)
    quality = np.arange(10.0)[:, None]
    clear = _report(quality + rng.normal(0, 0.1, (10, 8)), quality)["shared_reliability"]
    noise = _report(rng.normal(0, 1, (10, 8)), quality)["shared_reliability"]
    assert clear["tau"] > 0.9 and not clear["blind"]
    assert noise["tau"] < 0.3 and noise["blind"]


def test_sentences_say_tau_reliabilities_controls_and_noise():
    rng = np.random.default_rng(0)
    quality = np.arange(6.0)[:, None]
    shared, alone = quality + rng.normal(0, 0.01, (6, 4)), np.hstack([quality, -0.5 * quality])
    summary = _report(shared, alone, params=[6, 5, 4, 3, 2, 1], madds=[1] * 6)
    first, reliability, controls, noise = rank_report.sentences(summary)
    assert "over 6 networks: 1.00 (95 % interval 1.00 to 1.00)" in first
    assert (
        "tau 1.00 between two halves of the images" in reliability
        and "tau -1.00 between 2 seeds" in reliability
    )
    assert "-1.00 (95 % interval -1.00 to -1.00) for the number of parameters" in controls
    assert "not defined for the number of multiply-adds" in controls
    assert noise.startswith("The reliability of stand-alone training is below 0.3")


def test_no_order_gives_no_tau(tmp_path):
    summary = _report([0, 0, 0], [1, 2, 3])
    for name in ("kendall_tau", "kendall_tau_interval", "kendall_p", "spearman_rho"):
        assert summary[name] is None
    assert "over 3 networks: not defined" in rank_report.sentences(summary)[0]
    rank_report.draw(tmp_path / "rank.png", summary)
    assert (tmp_path / "rank.png").stat().st_size > 1000
    with pytest.raises(InputError, match="needs at least 3"):
        _report([0, 1], [0, 1])


def test_a_quality_that_is_not_finite_ranks_last(tmp_path):
    summary = _report([[-np.inf, -1], [-3, -3], [-2, -2]], [1, 2, 3])
    assert summary["kendall_tau"] == pytest.approx(1)
    assert [row["shared"] for row in summary["networks"]] == [None, -3, -2]
    json.dumps(summary, allow_nan=False)
    rank_report.draw(tmp_path / "rank.png", summary)


@pytest.mark.parametrize("draw", rank.DRAWS)
def test_networks_are_different_ones_of_the_band_and_follow_the_seed(model, search_dir, draw):
    settings, space = _settings(search_dir)
    band = rank.search_band(settings, space, model)
    mixture = rank.policies(settings, band, draw)
    first = rank.sample_networks(band, mixture, 24, 0)
    assert first.shape == (24, len(space.decisions)) and first.dtype == np.int32
    assert (np.abs(model.predict(first) / _TARGET - 1) <= 0.03).all()
    assert len(np.unique(first, axis=0)) == 24
    assert (first == rank.sample_networks(band, mixture, 24, 0)).all()
    assert (first != rank.sample_networks(band, mixture, 24, 1)).any()


def test_the_region_is_that_of_the_search(model, search_dir):
    settings, space = _settings(search_dir)
    band = rank.search_band(settings, space, model)
    # Evolution mutates the known networks one at a time, tunas and random start from their mean.
    known = rank.policies(settings, band, "region")
    assert len(known) > 1
    (mean,) = rank.policies(settings | {"algorithm": "tunas"}, band, "region")
    for number, row in enumerate(mean):
        np.testing.assert_allclose(row, np.mean([one[number] for one in known], axis=0))
    (space_policy,) = rank.policies(settings, band, "space")
    for changed in ({"region": "space"}, {"published": False}):
        (policy,) = rank.policies(settings | changed, band, "region")
        assert all((row == even).all() for row, even in zip(policy, space_policy, strict=True))


def test_a_region_with_too_few_networks_is_refused(model, search_dir):
    settings, space = _settings(search_dir)
    band = rank.search_band(settings, space, model)
    network = band.likeliest(rank.policies(settings, band, "space")[0])
    only = [np.eye(len(node.choices))[d] for (_, node), d in zip(space.decisions, network, strict=True)]
    with pytest.raises(InputError, match="1 different networks were found"):
        rank.sample_networks(band, [only], 3, 0)


def test_quality_of_a_training(tmp_path):
    assert rank.alone_quality(tmp_path, 20, "AP") is None
    row = {"AP": 0.2, "AP50": 0.5, "loss": 9.0, "classification_loss": 1.0, "localization_loss": 0.5}
    write_json(tmp_path / "eval_metrics.json", [{"step": 10}, {"step": 20} | row])
    assert rank.alone_quality(tmp_path, 20, "AP") == 0.2
    assert rank.alone_quality(tmp_path, 20, "AP50") == 0.5
    # As a search counts it: without weight decay, and higher is better.
    assert rank.alone_quality(tmp_path, 20, "loss") == -1.5
    # An evaluation on the way is none at the end.
    assert rank.alone_quality(tmp_path, 30, "AP") is None
    with pytest.raises(InputError, match="AP at step 10 is None"):
        rank.alone_quality(tmp_path, 10, "AP")


def _flags(search_dir, folder, model_file, **changed):
    flags = {
        "search_dir": search_dir,
        "model_dir": folder,
        "latency_model": model_file,
        "networks": 4,
        "steps": 20,
    }
    return ["x", *(f"--{name}={value}" for name, value in (flags | changed).items() if value is not None)]


def test_trains_resumes_and_reports(search_dir, model_file, tmp_path, monkeypatch, capsys):
    folder, trained, broken = tmp_path / "rank", [], [3]

    def shared_quality(search_dir, settings, space, networks):
        shared = np.arange(4.0)[:, None] + [[0.0, 0.1, 0.2, 0.3]]
        shared[0, 0] = -np.inf
        return shared

    def train(arguments):
        values = dict(part.removeprefix("--").split("=", 1) for part in arguments if "=" in part)
        if len(trained) in broken:
            broken.clear()
            # Killed after an evaluation on the way.
            write_json(f"{values['model_dir']}/eval_metrics.json", [{"step": 10, "AP": 0.9}])
            return 130
        trained.append((values["model_dir"].rpartition("/")[2], int(values["seed"])))
        number = int(architecture.load(values["architecture"]).name.removeprefix("network"))
        row = {"AP": 0.1 * number + 0.01 * int(values["seed"]), "AP50": 0.5 - 0.1 * number}
        write_json(f"{values['model_dir']}/eval_metrics.json", [{"step": 20} | row])
        return 0

    monkeypatch.setattr(rank, "shared_quality", shared_quality)
    monkeypatch.setattr("mobiledets_tf.commands.call", train)
    assert command.run(_flags(search_dir, folder, model_file, seed=5)) == 130
    assert not (folder / "rank_report.json").exists()
    # To resume, neither the latency model nor the shared weights are needed.
    monkeypatch.setattr(rank, "shared_quality", None)
    capsys.readouterr()
    assert command.run(_flags(search_dir, folder, None, seed=5)) == 0
    assert trained == [(f"network{n:03d}_seed{s}", s) for n in range(4) for s in (5, 6)]
    line = capsys.readouterr().out.splitlines()[-1]
    assert "over 4 networks: 1.00 (95 % interval 1.00 to 1.00)" in line and "tau 1.00 between 2 seeds" in line
    assert "for the number of parameters and" in line

    summary = json.loads((folder / "rank_report.json").read_text())
    assert summary["schema_version"] == 2 and summary["draw"] == "region" and summary["alone_metric"] == "AP"
    assert summary["kendall_tau"] == pytest.approx(1) and set(summary["controls"]) == {"params", "madds"}
    row = summary["networks"][0]
    assert row["shared"] is None and row["alone_by_seed"] == pytest.approx([0.05, 0.06])
    assert (folder / "rank_report.png").stat().st_size > 1000

    assert command.run(_flags(search_dir, folder, model_file, seed=5, alone="AP50")) == 0
    assert json.loads((folder / "rank_report.json").read_text())["kendall_tau"] == pytest.approx(-1)
    assert len(trained) == 8
    assert command.run(_flags(search_dir, folder, model_file, seed=5, networks=5)) == 2
    assert "networks was 4, is now 5" in capsys.readouterr().err

    (folder / "shared_quality.json").write_text('{"schema_version": 1, "values": [[1], [2, 3]]}')
    assert command.run(_flags(search_dir, folder, model_file, seed=5)) == 2
    assert "shared_quality.json' are malformed" in capsys.readouterr().err
    architecture.save(architecture.load("cpu"), folder / "network002.json")
    assert command.run(_flags(search_dir, folder, model_file, seed=5)) == 2
    assert "network002.json' is not a network of the search's space" in capsys.readouterr().err


def _refused(flags, folder, capsys) -> str:
    """The error of a command that leaves nothing behind."""
    assert command.run(flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not folder.exists()
    return error


def test_another_latency_model_is_refused_with_both_fingerprints(model, search_dir, tmp_path, capsys):
    other, path = dataclasses.replace(model, intercept=model.intercept + 1), tmp_path / "other.json"
    latency.save(other, path)
    error = _refused(_flags(search_dir, tmp_path / "rank", path), tmp_path / "rank", capsys)
    assert fingerprint(model) in error and fingerprint(other) in error


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"latency_model": None}, "--latency_model is required"),
        ({"latency_model": "/nowhere.json"}, "cannot read latency model"),
        ({"networks": 2}, "networks"),
        ({"seeds": 0}, "seeds"),
        ({"seed": 2**31 - 1}, "the largest allowed seed is 2147483647"),
        ({"draw": "regon"}, "did you mean 'region'"),
        ({"alone": "AP75"}, "allowed: AP, AP50, loss"),
        ({"train_data": "/nowhere"}, "no TFRecord files match"),
    ],
)
def test_wrong_flags_leave_nothing(search_dir, model_file, tmp_path, capsys, changed, message):
    folder = tmp_path / "rank"
    assert message in _refused(_flags(search_dir, folder, model_file, **changed), folder, capsys)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"region": None}, "lack 'region'"),
        ({"image_size": [96, 128]}, "allowed: square images"),
        ({"metric": "AP75"}, "metric is AP75"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": True}, "seed is True"),
        ({"mutation_rate": 10**400}, "mutation_rate is 1000"),
        ({"devices": []}, "devices is []"),
        (
            {
                "devices": [
                    {"device": "madds", "latency_model": "0", "latency_target": "1", "latency_band": 0.1}
                ]
            },
            "devices is",
        ),
        ({"train_data": "/nowhere"}, "no TFRecord files match"),
        ({"candidates": [{}]}, "candidate 1 of the search: key"),
    ],
)
def test_wrong_settings_of_a_search_are_refused(search_dir, model_file, tmp_path, capsys, changed, message):
    path, folder = search_dir / "settings.json", tmp_path / "rank"
    settings = {**json.loads(path.read_text()), **changed}
    write_json(path, {name: value for name, value in settings.items() if value is not None})
    assert message in _refused(_flags(search_dir, folder, model_file), folder, capsys)


def test_an_empty_band_is_refused(model, search_dir):
    settings, space = _settings(search_dir)
    settings["devices"][0]["latency_target"] = 1.0
    with pytest.raises(InputError, match="change the target"):
        rank.search_band(settings, space, model)


def test_a_folder_without_a_search_is_refused(model_file, tmp_path, capsys):
    folder = tmp_path / "rank"
    error = _refused(_flags(tmp_path, folder, model_file), folder, capsys)
    assert "contains no search with saved weights" in error


def test_a_search_of_another_version_or_space_is_refused(search_dir, model, model_file, tmp_path, capsys):
    path, folder = search_dir / "settings.json", tmp_path / "rank"
    settings = json.loads(path.read_text())
    settings["search_space"]["hash"] = "0" * 16
    write_json(path, settings)
    assert model.space.hash in _refused(_flags(search_dir, folder, model_file), folder, capsys)
    path.write_text("[]")
    assert "is not a JSON object" in _refused(_flags(search_dir, folder, model_file), folder, capsys)
    version = {"schema_version": state.SCHEMA_VERSION}
    for saved, message in (({}, "schema_version is None"), (version, "step is None")):
        write_json(search_dir / "search_state.json", saved)
        assert message in _refused(_flags(search_dir, folder, model_file), folder, capsys)


@pytest.mark.slow
def test_shared_weights_measure_networks(model, sample_records, tmp_path):
    from mobiledets_tf.search.step import build_step

    search = _search(model, tmp_path, sample_records, batch_size=1, rl_batch_multiplier=1, quality_images=4)
    write_json(tmp_path / "settings.json", search.settings())
    step, _ = build_step(model.space, (96, 96), 10)
    state.save(tmp_path, state.checkpoint(step.supernet), {"step": 3})
    settings, space = rank.read_search(tmp_path)
    band = rank.search_band(settings, space, model)
    networks = rank.sample_networks(band, rank.policies(settings, band, "region"), 3, 0)
    shared = rank.shared_quality(tmp_path, settings, space, networks)
    assert len(shared) == 3 and np.isfinite(shared).all() and (shared < 0).all()
    assert len(set(shared[:, 0])) == 3
    (again,) = rank.shared_quality(tmp_path, settings, space, networks[1:2])
    np.testing.assert_allclose(again, shared[1], rtol=1e-5)
    for path in tmp_path.glob("search-*"):
        path.unlink()
    with pytest.raises(InputError, match="weights .* cannot be read"):
        rank.shared_quality(tmp_path, settings, space, networks)
