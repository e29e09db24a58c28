"""Weights on another architecture: what changes no function is exact, and every tensor is accounted for."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from mobiledets_tf import architecture as architectures
from mobiledets_tf.compat import keras
from mobiledets_tf.models import build_detector
from mobiledets_tf.weights import fitting, imported_weights
from mobiledets_tf.weights.channels import importance, places
from mobiledets_tf.weights.imported_weights import Account, Target
from mobiledets_tf.weights.remap import remap, same_network

SIZE = (96, 96)


def target(name: str, depth: float = 0.25, classes: int = 3) -> Target:
    return Target(architectures.load(name), classes, SIZE, depth)


@functools.cache
def built(of: Target) -> tuple[keras.Model, dict[str, np.ndarray]]:
    """A network, made once, and its fresh weights."""
    keras.utils.set_random_seed(1)
    made = build_detector(of.architecture, of.num_classes, of.image_size, of.depth_multiplier)
    return made, {weight.name: weight.numpy() for weight in made.weights}


def network(account: Account) -> keras.Model:
    """The network with the weights of an account; one object for each target."""
    made, fresh = built(account.target)
    for weight in made.weights:
        weight.assign(fresh[weight.name])
    imported_weights.assign(account, {weight.name: weight for weight in made.weights})
    return made


def trained(of: Target) -> Account:
    """All weights of a network as if it had been trained: no BN is the identity, no bias 0."""
    rng, account = np.random.default_rng(2), Account("trained", "checkpoint", of)
    for name, value in built(of)[1].items():
        if name.endswith(("gamma:0", "moving_variance:0")):
            value = rng.uniform(0.5, 1.5, value.shape)
        elif "kernel" not in name:
            value = rng.normal(0, 0.3, value.shape)
        account.take(name, value, name, value.shape)
    return account


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(-1, 1, (2, *SIZE, 3)).astype(np.float32)


def moved(account: Account, to: Target, image) -> tuple[Account, float]:
    """Remaps; returns the account and the largest difference of the outputs, in their deviation."""
    found = remap(account, to, built(to)[1]).account
    outputs = [network(one)(image, training=False) for one in (account, found)]
    pairs = zip(*outputs, strict=True)
    return found, max(float(np.abs(a - b).max() / np.std(a)) for a, b in pairs)


@pytest.mark.parametrize("name", ["edgetpu", "cpu"])
def test_a_wider_network_computes_the_same_and_comes_back_exactly(name, image):
    """New channels are read by nobody, are worth nothing therefore, and are left out again everywhere."""
    narrow = trained(target(name))
    wide, apart = moved(narrow, target(name, 0.5), image)
    assert apart < 1e-4
    hows = {origin.how for origin in wide.origins.values()}
    assert hows == {"widened", "copied"} and not wide.fresh
    worth = importance(wide.target, wide.weights)
    added = len(wide.weights["extra1_conv_bn/beta:0"]) - len(narrow.weights["extra1_conv_bn/beta:0"])
    assert added > 0 and int((worth["extra1"] == 0).sum()) == added
    again, apart = moved(wide, narrow.target, image)
    assert apart < 1e-4
    for name, value in narrow.weights.items():
        np.testing.assert_array_equal(again.weights[name], value, err_msg=name)


def _changed(network: architectures.Architecture, block: int, layers) -> architectures.Architecture:
    blocks = list(network.blocks)
    blocks[block] = tuple(layers(blocks[block]))
    return dataclasses.replace(network, blocks=tuple(blocks))


def test_larger_kernels_and_more_layers_change_nothing(image):
    full = architectures.load("edgetpu")
    short = _changed(full, 4, lambda block: block[:2])
    small = _changed(short, 4, lambda block: [dataclasses.replace(layer, kernel_size=3) for layer in block])
    account = trained(Target(small, 3, SIZE, 0.25))
    found, apart = moved(account, target("edgetpu"), image)
    assert apart < 1e-4
    assert found.origins["block5_layer1_depthwise/depthwise_kernel:0"].how == "widened"
    assert "has no block5_layer4" in found.fresh["block5_layer4_project/kernel:0"]
    assert not found.weights["block5_layer4_project_bn/gamma:0"].any()
    # The other way layers are left out, and said to be.
    back = remap(found_all(found), account.target, account.weights).account
    assert back.skipped["block5_layer4_expand/kernel:0"].endswith("does not use it")
    np.testing.assert_array_equal(
        back.weights["block5_layer2_depthwise/depthwise_kernel:0"],
        account.weights["block5_layer2_depthwise/depthwise_kernel:0"],
    )


def found_all(account: Account) -> Account:
    """An account that holds what it leaves fresh as well."""
    values = {weight.name: weight.numpy() for weight in network(account).weights}
    return dataclasses.replace(
        account, weights=values, fresh={}, taken={name: name for name in values}, origins={}
    )


def test_a_channel_is_left_out_by_all_who_read_or_write_it():
    account, narrow = trained(target("edgetpu", 0.5)), target("edgetpu", 0.25)
    # A permutation of the channels of one residual stream, in every layer of it: the same choice follows.
    group, theirs = "block5_layer1", places(account.target)
    order = np.random.default_rng(4).permutation(theirs["block5_layer1_project"].conv.op.out_channels)
    shuffled = dict(account.weights)
    for place in theirs.values():
        conv = place.conv
        for name in conv.weights:
            value = shuffled[name]
            if value.ndim == 4 and place.reads == group:
                value = value[:, :, order]
            if place.writes == group and not (value.ndim == 4 and conv.op.depthwise):
                value = value[..., order]
            shuffled[name] = value
    fresh = built(narrow)[1]
    one = remap(account, narrow, fresh).account
    other = remap(dataclasses.replace(account, weights=shuffled), narrow, fresh).account
    for place in places(narrow).values():
        if group not in (place.reads, place.writes):
            for name in place.conv.weights:
                np.testing.assert_array_equal(one.weights[name], other.weights[name], err_msg=name)
    kernel = "block5_layer1_project/kernel:0"
    assert not np.array_equal(one.weights[kernel], other.weights[kernel])
    np.testing.assert_array_equal(np.sort(one.weights[kernel]), np.sort(other.weights[kernel]))


@pytest.mark.parametrize("name", ["dsp", "cpu"])
def test_every_tensor_is_accounted_for(name):
    account, to = trained(target("edgetpu")), target(name, 0.25, classes=5)
    if name == "cpu":  # The class predictors are left behind already.
        why = "it has 3 classes, but the network has 5"
        for conv in account.target.convolutions():
            if conv.depends_on_classes:
                for weight in conv.weights:
                    del account.weights[weight], account.taken[weight]
                account.leave_fresh(list(conv.weights), list(conv.weights), why)
    fresh = built(to)[1]
    found = remap(account, to, fresh).account
    assert set(fresh) == set(found.origins) | set(found.fresh)
    assert set(account.taken) | set(account.skipped) == set(found.taken) | set(found.skipped)
    assert not set(found.taken) & set(found.skipped)
    written = json.loads(json.dumps(found.to_dict()))["remapped"]
    errors = [row["relative_error"] for row in written.values() if "relative_error" in row]
    assert errors and all(0 <= error < 1 for error in errors)
    assert {row["how"] for row in written.values()} >= {"copied", "decomposed"}
    for name, value in found.weights.items():
        assert value.shape == fresh[name].shape and np.isfinite(value).all()
    assert "it has 3 classes, but the network has 5" in found.fresh["predictor0_class_conv/bias:0"]
    assert any("decomposed" in line and "relative error" in line for line in found.summary())


def test_the_same_architecture_stays_exact(image):
    account = trained(target("edgetpu"))
    named = dataclasses.replace(account.target.architecture.scaled(0.25), name="mine")
    to = Target(named, 3, (128, 128))
    assert same_network(account.target, to) and not same_network(account.target, target("edgetpu", 0.5))
    assert not fitting.needs_images(account, to)
    assert fitting.fit(account, to, None) is account


@pytest.mark.slow
def test_statistics_are_recovered_behind_a_remapping(image):
    account, to = trained(target("edgetpu")), target("dsp")
    batches = [np.random.default_rng(i).uniform(-1, 1, (4, *SIZE, 3)).astype(np.float32) for i in range(2)]
    found = fitting.fit(account, to, batches, seed=3)
    assert any("recovered from 8 images" in note for note in found.notes)
    made = network(found)
    for ours, theirs in zip(made(batches[0], training=False), made(batches[0], training=True), strict=True):
        assert float(np.abs(ours - theirs).mean() / np.std(theirs)) < 0.5
    # Fresh tensors are part of it: what was measured behind them stays true.
    assert found.weights.keys() == {weight.name for weight in made.weights}
    again = fitting.fit(account, to, batches, seed=3)
    for name, value in found.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)


@pytest.mark.slow
def test_a_real_file_keeps_its_function_and_can_be_trained(shared):
    """Outputs of the recovered network are those of the file's float interpretation."""
    from mobiledets_tf.data import preprocessing
    from mobiledets_tf.weights import tflite_file

    path = shared / "reference" / "coral_detector" / "ssdlite_mobiledet_dog_vs_cat.tflite"
    photos = sorted((shared / "data" / "cards" / "train").iterdir())[:48]
    account = tflite_file.resized(tflite_file.read(path), (128, 128))
    pixels = np.concatenate(
        [preprocessing.network_input(photo.read_bytes(), photo.name, (128, 128)) for photo in photos]
    )
    found = fitting.fit(account, account.target, [pixels[:16], pixels[16:32]])
    assert account.folded_norm and not found.folded_norm and not found.fresh
    held_out = pixels[32:]
    outputs = [network(one)(held_out, training=False) for one in (found, account)]
    for ours, theirs in zip(*outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)

    def apart(one: Account) -> float:
        outputs = [network(one)(held_out, training=mode) for mode in (False, True)]
        return max(float(np.abs(a - b).mean() / np.std(a)) for a, b in zip(*outputs, strict=True))

    assert apart(found) < 0.4 < apart(account)
