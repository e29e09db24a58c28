"""Pareto sets, journals, bands of cost and presets."""

import json

import numpy as np
import pytest

from mobiledets_tf import latency
from mobiledets_tf.errors import InputError
from mobiledets_tf.search import presets, report
from mobiledets_tf.search.archive import Archive, Candidate
from mobiledets_tf.search.band import likeliest_in_band, sample_in_band
from mobiledets_tf.search.controller import Controller
from mobiledets_tf.search.journal import Journal
from mobiledets_tf.search_space import get_space


def test_archive_keeps_the_pareto_set_and_the_best():
    rng = np.random.default_rng(0)
    archive, seen = Archive(size=5), []
    for step in range(300):
        quality, cost = (float(v) for v in rng.integers(0, 40, 2))
        seen.append(Candidate(step, (step,), quality, cost, quality - cost))
        archive.add(seen[-1])
    dominated = [
        any(
            (o.quality >= c.quality and o.cost <= c.cost) and (o.quality, o.cost) != (c.quality, c.cost)
            for o in seen
        )
        for c in seen
    ]
    expected = {(c.quality, c.cost) for c, d in zip(seen, dominated, strict=True) if not d}
    assert {(c.quality, c.cost) for c in archive.front} == expected
    assert len(archive.front) == len(expected)
    assert [c.reward for c in archive.best] == sorted((c.reward for c in seen), reverse=True)[:5]
    again = Archive(size=5)
    again.restore(json.loads(json.dumps(archive.state())))
    assert (again.best, again.front) == (archive.best, archive.front)


def test_archive_holds_a_network_once():
    archive = Archive()
    for step, reward in enumerate((0.1, 0.3, 0.2)):
        archive.add(Candidate(step, (1, 2), reward, 1.0, reward))
    assert [(c.step, c.reward) for c in archive.best] == [(1, 0.3)]


def test_journal_drops_what_lies_behind_the_saved_step(tmp_path):
    path = tmp_path / "rows.jsonl"
    journal = Journal(path, 0)
    for step in range(1, 6):
        journal.append({"step": step, "value": step / 3})
    with path.open("a") as file:
        file.write('{"step": 6, "va')
    assert [row["step"] for row in Journal(path, 4).rows] == [1, 2, 3, 4]
    again = Journal(path, 4)
    again.append({"step": 5, "value": 0.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == again.rows


@pytest.fixture(scope="module")
def model():
    return latency.madds_model(get_space("ibn", depth_multiplier=0.25), (96, 96), 10)


def test_random_networks_lie_in_the_band(model):
    networks = sample_in_band(model, 1.2e7, 0.03, np.random.default_rng(0), 50)
    assert networks.shape == (50, len(model.space.decisions))
    assert (np.abs(model.predict(networks) / 1.2e7 - 1) <= 0.03).all()
    assert len(np.unique(networks, axis=0)) == 50


def test_an_empty_band_says_what_there_is(model):
    with pytest.raises(InputError, match="random networks cost .* to"):
        sample_in_band(model, 1.0, 0.03, np.random.default_rng(0), 1)


@pytest.mark.parametrize("certain", [False, True])
def test_likeliest_in_band_is_in_the_band_and_likelier_than_random_ones(model, certain):
    rng = np.random.default_rng(1)
    controller = Controller(model.space)
    scale = 40.0 if certain else 2.0
    state = controller.state()
    state["logits"] = (rng.normal(0, scale, np.shape(state["logits"]))).tolist()
    controller.restore(state)
    target = 1.3 * model.predict_one(controller.best())
    found = likeliest_in_band(controller, model, target, 0.02, rng)
    assert abs(model.predict_one(found) / target - 1) <= 0.02
    others = sample_in_band(model, target, 0.02, rng, 500)
    assert controller.log_probability(found[None])[0] > controller.log_probability(others).max()


def test_a_target_beyond_the_space_has_no_network(model):
    controller = Controller(model.space)
    assert likeliest_in_band(controller, model, 1e12, 0.03, np.random.default_rng(0)) is None


def test_presets_say_what_they_change():
    assert presets.changes("tunas") == ""
    assert "quality AP -> AP50" in presets.changes("small")
    with pytest.raises(InputError, match="did you mean 'small'"):
        presets.get_preset("smal")


@pytest.mark.parametrize(
    ("qualities", "final"),
    [
        ([None, 0.0, 0.0], 0.0), ([None, None], None), ([0.3], 0.3), ([0.0, 0.2, 0.4], 0.4),
        ([None, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.2, 0.4], 0.3),
    ],
)  # fmt: skip
def test_the_last_quarter_of_the_rewards_tells_whether_a_search_saw(qualities, final):
    rows = [{"step": 1} if quality is None else {"step": 1, "quality": quality} for quality in qualities]
    assert report.final_quality(rows) == (final if final is None else pytest.approx(final))
