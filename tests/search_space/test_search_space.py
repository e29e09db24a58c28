"""Spaces: sizes, sampling, encoding of the released networks."""

import math

import numpy as np
import pytest

from mobiledets_tf import architecture, search_space
from mobiledets_tf.search_space import OneOf, decode, encode, get_space, sample


@pytest.mark.parametrize(
    ("name", "low", "high"), [("ibn", 20, 22), ("ibn_fused", 25, 28), ("ibn_fused_tucker", 32, 35)]
)
def test_size(name, low, high):
    space = get_space(name)
    log_size = sum(math.log10(len(node.choices)) for _, node in space.decisions)
    assert low <= log_size <= high


@pytest.mark.parametrize(
    ("name", "options"),
    [("cpu", {"activation": "hard_swish", "se_ratio": 0.25}), ("edgetpu", {}), ("dsp", {})],
)
def test_released_networks_round_trip(name, options):
    space, network = get_space("ibn_fused_tucker", **options), architecture.load(name)
    again = decode(space, encode(space, network))
    assert (again.stem, again.blocks) == (network.stem, network.blocks)


@pytest.mark.parametrize("name", ["ibn", "ibn_fused", "ibn_fused_tucker"])
def test_encode_takes_decode_back(name):
    space, rng = get_space(name), np.random.default_rng(5)
    for _ in range(20):
        network = decode(space, sample(space, rng))
        assert decode(space, encode(space, network)).blocks == network.blocks


def test_sampling_is_seeded():
    space = get_space("ibn")
    first, again, other = (sample(space, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_hash_follows_content():
    spaces = [get_space("ibn"), get_space("ibn", kernel_sizes=(3,)), get_space("ibn", depth_multiplier=0.5)]
    assert len({space.hash for space in spaces}) == 3
    assert get_space("ibn").hash == spaces[0].hash


def test_traversal_by_hand():
    tree = (OneOf((1, 2, 3), "a"), OneOf((4, 5), "b"))
    assert search_space.size(tree) == 6
    assert [node.tag for _, node in search_space.one_ofs(tree)] == ["a", "b"]
