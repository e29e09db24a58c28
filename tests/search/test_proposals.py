"""Policies that a search starts from, against shares that can be computed by hand."""

import numpy as np
import pytest

from mobiledets_tf.search import proposals
from mobiledets_tf.search_space import SKIP, SPACES, get_space, sample


@pytest.mark.parametrize("name", SPACES)
def test_kinds_of_layer_come_evenly_and_widths_too(name):
    space = get_space(name)
    policy = proposals.even(space)
    for row, (_, node) in zip(policy, space.decisions, strict=True):
        assert row.sum() == pytest.approx(1) and (row > 0).all()
        if node.tag == "filters":
            np.testing.assert_allclose(row, 1 / len(node.choices))
            continue
        kinds = [option.op for option in node.choices]
        shares = {kind: row[[k == kind for k in kinds]] for kind in kinds}
        # A layer that may be left out is left out as often in every space.
        skips = 0.25 if SKIP in node.choices else 0.0
        for kind, of_kind in shares.items():
            part = skips if kind == "skip" else (1 - skips) / (len(shares) - (SKIP in node.choices))
            assert of_kind.sum() == pytest.approx(part) and np.ptp(of_kind) < 1e-15


def test_a_layer_of_the_largest_space_by_hand():
    """4 IBN, 4 fused, 8 Tucker and a skip: a quarter each, where even options would give Tucker 8 of 17."""
    space = get_space("ibn_fused_tucker")
    index = next(i for i, (path, _) in enumerate(space.decisions) if path == "blocks/1/layers/1/op")
    node, row = space.decisions[index][1], proposals.even(space)[index]
    by_hand = {"ibn": 1 / 16, "fused": 1 / 16, "tucker": 1 / 32, "skip": 1 / 4}
    np.testing.assert_allclose(row, [by_hand[option.op] for option in node.choices])
    assert node.choices.count(SKIP) == 1


def test_a_mutation_changes_a_decision_at_the_rate_and_draws_it_evenly():
    space = get_space("ibn_fused_tucker")
    network = sample(space, np.random.default_rng(0))
    even = proposals.even(space)
    for rate in (0.0, 0.15, 1.0):
        for row, from_even, option in zip(proposals.around(space, network, rate), even, network, strict=True):
            assert row.sum() == pytest.approx(1)
            assert row[option] == pytest.approx(1 - rate * (1 - from_even[option]))
            others = np.arange(len(row)) != option
            np.testing.assert_allclose(row[others], rate * from_even[others])
    assert (proposals.even(space)[4] == even[4]).all()


def test_a_mix_crosses_its_networks():
    space = get_space("ibn", depth_multiplier=0.25)
    pair = sample(space, np.random.default_rng(1), 2)
    mixed = proposals.mixed([proposals.around(space, network, 0.0) for network in pair])
    for row, options in zip(mixed, pair.T, strict=True):
        expected = np.bincount(options, minlength=len(row)) / 2
        np.testing.assert_allclose(row, expected)
