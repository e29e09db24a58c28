"""The device madds is exact; files round trip; broken files are refused."""

import json

import numpy as np
import pytest

from mobiledets_tf import architecture, latency
from mobiledets_tf.cli import latency as command
from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import shipped
from mobiledets_tf.search_space import decode, get_space, sample

SPACES = [
    get_space("ibn"),
    get_space("ibn_fused", kernel_sizes=(3,)),
    get_space("ibn_fused_tucker", depth_multiplier=0.35),
    get_space("ibn", activation="hard_swish", se_ratio=0.25),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.name}-{space.se_ratio}")
@pytest.mark.parametrize("size", [320, (224, 352)])
def test_madds_are_exact(space, size):
    model = latency.madds_model(space, size, 10)
    rng = np.random.default_rng(3)
    for decisions in (sample(space, rng) for _ in range(10)):
        exact = architecture.describe(decode(space, decisions), 10, size)["madds"]
        assert model.predict_one(decisions) == exact


@pytest.fixture
def path(tmp_path):
    latency.save(latency.madds_model(SPACES[0], (160, 192), 7), tmp_path / "model.json")
    return tmp_path / "model.json"


def test_file_round_trip(path):
    decisions = np.stack([sample(SPACES[0], np.random.default_rng(i)) for i in range(5)])
    expected = latency.madds_model(SPACES[0], (160, 192), 7).predict(decisions)
    np.testing.assert_array_equal(latency.load(path).predict(decisions), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, "schema_version"),
        ({"intercept": "much"}, "malformed"),
        ({"coefficients": [1.0]}, "coefficients"),
        ({"kind": "guessed"}, "kind"),
    ],
)
def test_broken_files_are_refused(path, change, message):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        latency.load(path)


@pytest.mark.parametrize("change", [{"intercept": 1.5}, {"device": "other"}, {"note": "mine"}])
def test_an_edited_file_is_refused(path, change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match="the file was edited"):
        latency.load(path)


def test_parts_add_up_to_the_prediction():
    model = latency.madds_model(SPACES[2], 160, 3)
    decisions = sample(SPACES[2], np.random.default_rng(0))
    assert sum(model.parts(decisions).values()) == pytest.approx(model.predict_one(decisions), rel=1e-12)


def test_another_space_hash_is_refused(path):
    data = json.loads(path.read_text())
    data["search_space"]["hash"] = "0" * 8
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="hash '00000000'"):
        latency.load(path)


def test_command_predicts_the_exact_count(tmp_path, capsys):
    model = str(tmp_path / "model.json")
    assert command.run(["mobiledets-latency", "--mode=fit", f"--output={model}"]) == 0
    assert command.run(["x", "--mode=show", f"--model={model}", "--architecture=edgetpu"]) == 0
    assert capsys.readouterr().out.count("1,533,181,504") == 2


@pytest.mark.parametrize(
    "flags",
    [
        ["--mode=fit"],
        ["--mode=fitt"],
        [],
        ["--mode=measure", "--output=x"],
        ["--mode=check"],
        ["--mode=fit", "--device=hexagon", "--output=x"],
        ["--mode=show", "--model=absent.json"],
        ["--mode=measure", "--device=edgetpu", "--output=x", "--sampling=band", "--model=x", "--band=2,1"],
        ["--mode=measure", "--device=edgetpu", "--output=x", "--kernel_sizes=4"],
        ["--mode=measure", "--device=edgetpu", "--output=x", "--variant=pixel9"],
    ],
)
def test_wrong_flags_exit_2(flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.run(["mobiledets-latency", *flags]) == 2
    assert not list(tmp_path.iterdir())


def test_shipped_models_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in shipped.shipped_paths():
        assert latency.load(path.name).device == latency.load(path.stem).device == latency.load(path).device
    own = tmp_path / shipped.shipped_paths()[0].name
    own.write_text("{}")
    with pytest.raises(InputError, match="schema_version"):
        latency.load(own.name)
