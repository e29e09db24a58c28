"""Known networks in the band of a search: a network that is there comes back, others come near."""

import dataclasses
import functools

import numpy as np
import pytest

from mobiledets_tf import architecture, latency
from mobiledets_tf.search.band import Band
from mobiledets_tf.search.known import fit, known_networks
from mobiledets_tf.search_space import SPACES, decode, encode, get_space

IMAGE, CLASSES, WIDTH = 96, 10, 0.03


@functools.cache
def _model(name, depth_multiplier):
    return latency.madds_model(get_space(name, depth_multiplier=depth_multiplier), IMAGE, CLASSES)


def _edgetpu(depth_multiplier):
    """The published network at this width: decisions in the largest space, and multiply-adds."""
    model = _model("ibn_fused_tucker", depth_multiplier)
    decisions = encode(model.space, architecture.load("edgetpu").scaled(depth_multiplier))
    return tuple(decisions.tolist()), model.predict_one(decisions)


@pytest.mark.parametrize("depth_multiplier", [0.35, 1.0])
@pytest.mark.parametrize("name", SPACES)
def test_all_published_networks_fit_and_the_one_of_that_cost_is_unchanged(name, depth_multiplier):
    model, (edgetpu, target) = _model(name, depth_multiplier), _edgetpu(depth_multiplier)
    band = Band(model, target, WIDTH)
    found = {known.name: known for known in known_networks(band)}
    assert list(found) == list(architecture.PUBLISHED)
    decisions = np.array([known.decisions for known in found.values()])
    assert band.contains(decisions).all() and len(np.unique(decisions, axis=0)) == len(found)
    for known in found.values():
        # All layers are there that the published network has, those left out at the end of a block.
        network = decode(model.space, known.decisions)
        depths = [len(block) for block in architecture.load(known.name).blocks]
        if known.changes == 0:
            assert [len(block) for block in network.blocks] == depths
            assert tuple(encode(model.space, network).tolist()) == known.decisions
    if name == "ibn_fused_tucker":
        assert found["edgetpu"].decisions == edgetpu and found["edgetpu"].changes == 0
        scaled = architecture.load("edgetpu").scaled(depth_multiplier)
        assert decode(model.space, edgetpu).blocks == scaled.blocks


def test_widths_grow_with_the_target():
    model, (_, cost) = _model("ibn_fused_tucker", 1.0), _edgetpu(1.0)
    targets = [0.4 * cost, cost, 2.5 * cost]
    scales, widths = [], []
    for target in targets:
        known = fit(Band(model, target, WIDTH), architecture.load("edgetpu"))
        network = decode(model.space, known.decisions)
        scales.append(known.scale)
        widths.append(sum(block[0].filters for block in network.blocks))
    assert scales == sorted(scales) and scales[0] < 0.8 and scales[-1] > 1.2
    assert widths == sorted(set(widths))


def test_candidates_come_first_and_no_network_twice():
    model, (edgetpu, target) = _model("ibn_fused_tucker", 0.35), _edgetpu(0.35)
    band = Band(model, target, WIDTH)
    mine = dataclasses.replace(architecture.load("edgetpu"), name="mine")
    other = dataclasses.replace(architecture.load("dsp"), name="other")
    found = known_networks(band, (mine, other, mine))
    assert [known.name for known in found] == ["mine", "other", "cpu", "gpu"]
    assert found[0].decisions == edgetpu
    assert [known.name for known in known_networks(band, (other,), published=False)] == ["other"]
    assert known_networks(band, published=False) == []


def _inside(band, count):
    even = [np.full(len(node.choices), 1.0) for _, node in band.latency.space.decisions]
    return band.sample(even, np.random.default_rng(0), count)


def test_a_network_of_the_space_comes_back_at_its_cost():
    model, (_, target) = _model("ibn_fused_tucker", 0.35), _edgetpu(0.35)
    for decisions in _inside(Band(model, target, WIDTH), 3):
        network = decode(model.space, decisions, "before")
        own = Band(model, model.predict_one(decisions), WIDTH)
        (known,) = known_networks(own, (network,), published=False)
        # Layers left out come last in a block.
        assert known.changes == 0 and known.decisions == tuple(encode(model.space, network).tolist())


def test_a_network_of_the_space_that_is_in_the_band_comes_back():
    model, (_, target) = _model("ibn_fused_tucker", 0.35), _edgetpu(0.35)
    band = Band(model, target, WIDTH)
    for decisions in _inside(band, 3):
        network = decode(model.space, decisions, "before")
        (known,) = known_networks(band, (network,), published=False)
        assert decode(model.space, known.decisions).blocks == network.blocks


def test_a_network_that_no_scale_brings_near_is_left_out():
    """Beside the dearest network of the space, CPU's separable and IBN layers stay far too cheap."""
    model = _model("ibn_fused_tucker", 1.0)
    dearest = float(model.predict(_dearest(model)[None])[0])
    assert fit(Band(model, dearest, WIDTH), architecture.load("cpu")) is None


def _dearest(model):
    """The decisions with one option wherever there is one of that size: the largest of each kind."""
    best = np.array([len(node.choices) - 1 for _, node in model.space.decisions])
    for index, (_, node) in enumerate(model.space.decisions):
        rows = np.tile(best, (len(node.choices), 1))
        rows[:, index] = np.arange(len(node.choices))
        best = rows[model.predict(rows).argmax()]
    return best
