"""Files of measured networks: resumed, never half a line, every fault with its line."""

import itertools
import json

import numpy as np
import pytest

from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import samples
from mobiledets_tf.search_space import get_space

SPACE = get_space("ibn", depth_multiplier=0.25)
HEADER = {"device": "test", "seed": 3}


def _networks():
    return samples.proposals(SPACE, seed=3, spread=True)


def _cost(decisions) -> float:
    if decisions[0] == 0:
        raise RuntimeError("does not\nfit")
    return float(decisions.sum() + 1)


def test_proposals_are_seeded_and_spread_wider_than_uniform_ones():
    first, second = (list(itertools.islice(_networks(), 200)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    uniform = list(itertools.islice(samples.proposals(SPACE, seed=3, spread=False), 200))
    widths = [i for i, (_, node) in enumerate(SPACE.decisions) if node.tag == "filters"]
    deviation = [np.array(found)[:, widths].mean(axis=1).std() for found in (first, uniform)]
    assert deviation[0] > 1.3 * deviation[1]


def test_a_killed_run_goes_on_to_the_same_file(tmp_path):
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    samples.collect(whole, HEADER, _networks(), 20, _cost)
    samples.collect(killed, HEADER, _networks(), 7, _cost)
    with open(killed, "a", encoding="utf-8") as file:
        file.write('{"decisions": [1, 2')
    done = samples.collect(killed, HEADER, _networks(), 20, _cost)
    assert killed.read_text() == whole.read_text()
    assert done["measured"] + done["failed"] == 13
    _, rows = samples.read(killed)
    failed = [row for row in rows if "error" in row]
    assert failed and all(row["error"] == "does not fit" and row["decisions"][0] == 0 for row in failed)
    read = samples.load(killed, SPACE)
    decisions, times = read.decisions, read.times
    assert (read.networks, read.failed) == (20, len(failed))
    assert len(decisions) == len({tuple(row["decisions"]) for row in rows if "ms" in row})
    np.testing.assert_array_equal(times, decisions.sum(axis=1) + 1)


@pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_a_failure_of_the_network(tmp_path, given):
    samples.collect(tmp_path / "s.jsonl", HEADER, _networks(), 1, lambda _: given)
    _, rows = samples.read(tmp_path / "s.jsonl")
    assert "allowed: numbers above 0" in rows[0]["error"]


def test_another_header_is_refused_with_both_values(tmp_path):
    samples.collect(tmp_path / "s.jsonl", HEADER, _networks(), 1, _cost)
    with pytest.raises(InputError, match="seed 3; this run has 4"):
        samples.collect(tmp_path / "s.jsonl", HEADER | {"seed": 4}, _networks(), 2, _cost)


def _file(path, *rows):
    lines = [json.dumps({"schema_version": 1}), *(r if isinstance(r, str) else json.dumps(r) for r in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


ONES = [0] * len(SPACE.decisions)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], "line 2 is not valid JSON"),
        ([[1]], "line 2 is not an object"),
        ([{"decisions": ONES}], "line 2: 'decisions' and either 'ms' or 'error'"),
        ([{"decisions": ONES, "ms": 0}], "line 2: ms is 0"),
        ([{"decisions": ONES, "ms": True}], "line 2: ms is True"),
        ([{"decisions": [0], "ms": 1}], "line 2: 1 decisions given"),
        ([{"decisions": [99, *ONES[1:]], "ms": 1}], "line 2: decision stem_filters is 99"),
        ([{"decisions": ONES, "ms": 1}, {"decisions": ONES, "ms": 2}], "line 3: this network occurs earlier"),
    ],
)
def test_damaged_samples_name_their_line(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        samples.load(_file(tmp_path / "s.jsonl", *rows), SPACE)
