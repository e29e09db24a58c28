"""Pareto sets, journals, presets and what a report says."""

import json
import re

import numpy as np
import pytest

from mobiledets_tf.cli import search
from mobiledets_tf.errors import InputError
from mobiledets_tf.search import presets, search_report
from mobiledets_tf.search.archive import Archive, Candidate
from mobiledets_tf.search.finalists import Finalist
from mobiledets_tf.search.journal import Journal


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


def test_archive_spreads_from_the_best_along_the_front_and_forgets():
    archive = Archive(size=2)
    rows = [(0.5, 9.0, 0.1), (0.4, 5.0, 0.4), (0.3, 4.0, 0.3), (0.2, 1.0, 0.2)]
    for step, (quality, cost, reward) in enumerate(rows):
        archive.add(Candidate(step, (step,), quality, cost, reward))
    # The two best by reward, then the front, dear and good first.
    assert archive.spread(16) == [(1,), (2,), (0,), (3,)] and archive.spread(3) == [(1,), (2,), (0,)]
    archive.replace([Candidate(9, (0,), 0.1, 9.0, 0.1), Candidate(9, (3,), 0.6, 1.0, 0.6)])
    assert [c.decisions for c in archive.best] == [(3,), (0,)]
    assert [c.decisions for c in archive.front] == [(3,)]


def test_presets_say_what_they_change():
    assert presets.changes("tunas") == ""
    changes = presets.changes("small")
    for one in ("algorithm tunas -> evolution", "reward abs -> band", "quality AP -> loss"):
        assert one in changes
    assert all(name in presets.get_preset("tunas") for name in presets.get_preset("small"))
    with pytest.raises(InputError, match="did you mean 'small'"):
        presets.get_preset("smal")


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_is_of_flags_and_their_help_shows_its_values(name):
    """The values in brackets in the help: (small, tunas)."""
    small, tunas = (presets.get_preset(name) for name in ("small", "tunas"))
    for flag, value in presets.get_preset(name).items():
        definition = search.FLAGS[flag]
        assert definition.default is None, flag
        assert definition.parser.parse(str(value).lower() if isinstance(value, bool) else value) == value
        shown = re.search(r"\(([^()]+), ([^()]+)\)\.?$", definition.help.replace("\n", " "))
        assert shown, definition.help
        for text, given in zip(shown.groups(), (small[flag], tunas[flag]), strict=True):
            assert text == str(given).lower() or text == str(given) or float(text) == given, (flag, text)


def _finalist(name, judged, source="population", steps=20):
    return Finalist((name,), source, quality=float(np.mean(judged)), steps=steps, judged=tuple(judged))


def test_the_network_found_is_compared_with_the_best_known_one_that_was_trained_as_long():
    found = _finalist(1, [3.0, 4.0, 5.0])
    known = [_finalist(2, [1.0, 2.0, 3.0], "published cpu"), _finalist(3, [2.0, 3.5, 4.0], "candidate mine")]
    better_but_shorter = _finalist(4, [9.0, 9.0, 9.0], "published gpu", steps=5)
    against = search_report.against_known([found, *known, better_but_shorter])
    assert against == {
        "source": "candidate mine",
        "is_found": False,
        "found": 4.0,
        "known": pytest.approx(9.5 / 3),
        "certainty": 1.0,
    }
    assert search_report.against_known([found, _finalist(2, [1.0], steps=5)]) is None
    itself = search_report.against_known([known[0], found])
    assert itself["is_found"] and itself["certainty"] is None and itself["source"] == "published cpu"
    # Not trained alone: by shared weights.
    alone = [Finalist((1,), "policy", quality=0.3), Finalist((2,), "published dsp", quality=0.2)]
    assert search_report.against_known(alone) == {
        "source": "published dsp",
        "is_found": False,
        "found": 0.3,
        "known": 0.2,
        "certainty": None,
    }


def _summary(**changed):
    against = {"source": "published edgetpu", "is_found": False}
    against |= {"found": -1.25, "known": -1.5, "certainty": 0.97}
    return {
        "settings": {"metric": changed.pop("metric", "loss")},
        "reliability": {"blind": changed.pop("blind", False), "tau": changed.pop("tau", 0.8)},
        "devices": [{"device": "madds", "trained_alone": 80, "against_known": against | changed}],
    }


def test_a_search_says_how_it_stands_to_what_was_known():
    assert search_report.lines(_summary()) == [
        "madds: loss 1.2500 for the network found, 1.5000 for the published edgetpu at equal cost, "
        "each trained alone for 80 steps; the network found is better in 97% of 2,000 bootstrap samples of "
        "the images"
    ]
    (line,) = search_report.lines(_summary(metric="AP", found=0.25, known=0.2, certainty=None))
    assert "AP 0.2500 for the network found, 0.2000 for" in line and "bootstrap" not in line
    (line,) = search_report.lines(_summary(is_found=True))
    assert line.startswith("madds: the published edgetpu was the best of the finalists")
    blind, _ = search_report.lines(_summary(blind=True, tau=0.1))
    assert "does not rank networks reliably (its split-half tau is 0.10; at least 0.3" in blind
    assert "split-half tau is undefined" in search_report.lines(_summary(blind=True, tau=None))[0]
