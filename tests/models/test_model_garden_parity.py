"""The backbone against an independent implementation, Model Garden's, with the same weights."""

import dataclasses
import functools

import numpy as np
import pytest

from mobiledets_tf import architecture
from mobiledets_tf.compat import keras
from mobiledets_tf.models import build_backbone

MODEL_GARDEN = {
    "cpu": "MobileDetCPU",
    "edgetpu": "MobileDetEdgeTPU",
    "dsp": "MobileDetDSP",
    "gpu": "MobileDetGPU",
}
PARAMS = {"cpu": 3_036_728, "edgetpu": 2_815_456, "dsp": 5_886_464, "gpu": 11_718_560}
TOLERANCE = 1e-4
# Model Garden's table lacks the residual of this layer (counted from the stem), the TF1 extractor has it.
DSP_LAYER = 20
KINDS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


@functools.cache
def _garden(name):
    from official.vision.modeling.backbones.mobiledet import MobileDet

    image = keras.layers.InputSpec(shape=[None, 320, 320, 3])
    return MobileDet(MODEL_GARDEN[name], input_specs=image, norm_epsilon=0.01)


@functools.cache
def _ours(name):
    """Our backbone with non-trivial weights everywhere, BN statistics included."""
    keras.utils.set_random_seed(5)
    model = build_backbone(architecture.load(name))
    rng = np.random.default_rng(5)
    draws = {
        "bias": lambda shape: rng.normal(0, 0.5, shape),
        "gamma": lambda shape: rng.uniform(0.4, 1.0, shape),
        "beta": lambda shape: rng.normal(0, 0.5, shape),
        "moving_mean": lambda shape: rng.normal(0, 0.5, shape),
        "moving_variance": lambda shape: rng.uniform(0.5, 1.5, shape),
    }
    for weight in model.weights:
        if _kind(weight) in draws:
            weight.assign(draws[_kind(weight)](weight.shape))
    return model


def _kind(weight) -> str:
    name = weight.name.split("/")[-1].split(":")[0]
    return "kernel" if name == "depthwise_kernel" else name


def _by_kind(model) -> dict[str, list]:
    return {kind: [w for w in model.weights if _kind(w) == kind] for kind in KINDS}


def _transfer(source, target) -> None:
    """Copies weights in order within each kind; both graphs hold their blocks in the same order."""
    for ours, theirs in zip(_by_kind(source).values(), _by_kind(target).values(), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape, (a.name, b.name)
            b.assign(a)


def _image():
    return np.random.default_rng(9).uniform(-1, 1, (1, 320, 320, 3)).astype(np.float32)


def _differences(outputs, theirs) -> dict[str, float]:
    """Largest absolute difference of each endpoint; ours are C1..C5, theirs '1'..'5'."""
    assert len(outputs) == len(theirs) == 5
    return {name: float(np.abs(outputs[name] - theirs[name[1:]]).max()) for name in outputs}


def _set_dsp_residual(garden, value: bool) -> None:
    from official.vision.modeling.layers import nn_blocks

    kinds = (nn_blocks.InvertedBottleneckBlock, nn_blocks.TuckerConvBlock)
    blocks = [layer for layer in garden.layers if isinstance(layer, kinds)]
    block = blocks[DSP_LAYER - 1]  # The stem is no block.
    assert (block.get_config()["out_filters"], block.get_config()["use_depthwise"]) == (160, False)
    block._use_residual = value


@pytest.mark.parametrize("name", MODEL_GARDEN)
def test_parameter_counts(name):
    assert _ours(name).count_params() == _garden(name).count_params() == PARAMS[name]


@pytest.mark.parametrize("name", MODEL_GARDEN)
def test_same_weights_give_the_same_maps(name):
    ours, garden = _ours(name), _garden(name)
    _transfer(ours, garden)
    if name == "dsp":
        _set_dsp_residual(garden, True)
    outputs = ours(_image())
    differences = _differences(outputs, garden(_image()))
    # Signals of ordinary size at every endpoint: zeros would agree as well.
    assert all(0.3 < float(np.std(x)) < 10 for x in outputs.values())
    assert max(differences.values()) < TOLERANCE


def test_dsp_differs_from_model_garden_in_one_residual():
    garden = _garden("dsp")
    _transfer(_ours("dsp"), garden)
    _set_dsp_residual(garden, False)
    theirs = garden(_image())
    with_it = _differences(_ours("dsp")(_image()), theirs)
    assert with_it["C4"] < TOLERANCE  # The layer comes after C4 ...
    assert with_it["C5"] > 0.1  # ... and before C5.
    without = build_backbone(_without_residual(architecture.load("dsp")))
    _transfer(_ours("dsp"), without)
    assert max(_differences(without(_image()), theirs).values()) < TOLERANCE


@pytest.mark.parametrize("name", ["edgetpu", "cpu"])
def test_one_wrong_weight_is_seen(name):
    """The comparison could fail: one BN mean moved in the middle of the network shows up."""
    ours, garden = _ours(name), _garden(name)
    _transfer(ours, garden)
    weight = _by_kind(garden)["moving_mean"][30]
    weight.assign(weight + 0.1)
    differences = _differences(ours(_image()), garden(_image()))
    assert max(differences["C4"], differences["C5"]) > 10 * TOLERANCE


def _without_residual(network):
    """The network without the residual of block 6, layer 3."""
    block = list(network.blocks[5])
    block[2] = dataclasses.replace(block[2], residual=False)
    return dataclasses.replace(network, blocks=(*network.blocks[:5], tuple(block), network.blocks[6]))
