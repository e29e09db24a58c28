"""The supernet gives the same numbers as the stand-alone networks it holds."""

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.models import build_detector
from mobiledets_tf.models.supernet import Supernet, mix_option
from mobiledets_tf.search_space import decode, get_space, sample

SIZE, CLASSES, DEPTH = 96, 3, 0.25
SPACES = [("ibn", {}), ("ibn_fused", {}), ("ibn_fused_tucker", {})]
SPACES += [("ibn_fused_tucker", {"activation": "hard_swish", "se_ratio": 0.25})]


def _supernet(name, options):
    tf.random.set_seed(0)
    return Supernet(get_space(name, depth_multiplier=DEPTH, **options), CLASSES, SIZE)


def _run(supernet, images, decisions):
    decisions = tf.constant(decisions, tf.int32)
    return supernet(images, supernet.slices(supernet.sizes(decisions)), decisions)


def _stand_alone(supernet, decisions):
    """The network of a decision vector with the supernet's weights; every weight but BN statistics set."""
    model = build_detector(decode(supernet.space, decisions), CLASSES, SIZE)
    weights = supernet.detector_weights(decisions)
    by_name = {weight.name.removesuffix(":0"): weight for weight in model.weights}
    assert set(weights) == {name for name in by_name if "/moving_" not in name}
    for name, value in weights.items():
        by_name[name].assign(value)
    return model


def _images(batch=2):
    return tf.constant(np.random.default_rng(0).uniform(-1, 1, (batch, SIZE, SIZE, 3)), tf.float32)


@pytest.mark.parametrize(("name", "options"), SPACES)
def test_equals_the_stand_alone_network(name, options):
    supernet, rng, images = _supernet(name, options), np.random.default_rng(1), _images()
    for _ in range(2):
        decisions = sample(supernet.space, rng)
        expected = _stand_alone(supernet, decisions)(images, training=True)
        for ours, theirs in zip(_run(supernet, images, decisions), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def test_gradients_reach_the_sampled_weights_only():
    supernet, images = _supernet("ibn_fused_tucker", {}), _images()
    decisions = sample(supernet.space, np.random.default_rng(2))
    network = tf.constant(decisions)
    sizes = supernet.sizes(network)
    slices = supernet.slices(sizes)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(slices)
        boxes, logits = supernet(images, slices, network)
        loss = tf.reduce_sum(boxes**2) + tf.reduce_sum(logits**2)
    pairs = supernet.gradients(tape.gradient(loss, slices, unconnected_gradients="zero"), sizes)
    assert len(pairs) == sum(len(op.weights) for op in supernet.ops.values())
    touched = {variable.name for gradient, variable in pairs if np.abs(gradient).max() > 0}
    for gradient, variable in pairs:
        assert gradient.shape == variable.shape
    sampled = {name for name, tensors in slices.items() if tf.size(tensors[0]) > 0}
    assert {name.rpartition("/")[0] for name in touched} == sampled


def test_mix_is_the_mean_of_all_options():
    supernet, images = _supernet("ibn", {}), _images()
    layer = supernet.layers[0]
    decisions = np.zeros(len(supernet.space.decisions), np.int32)
    x = supernet.stem.apply(images, supernet.slices(supernet.sizes(tf.constant(decisions)))["stem"])

    def output(option):
        network = decisions.copy()
        network[layer.position.op] = option
        slices = supernet.slices(supernet.sizes(tf.constant(network)))
        mine = {key: slices[f"{layer.position.name}/{key}"] for key in layer.ops}
        return layer(x, mine, tf.constant(network)).numpy()

    options = [output(option) for option in range(mix_option(layer.layer))]
    assert np.abs(options[0] - options[1]).max() > 1e-3
    np.testing.assert_allclose(output(mix_option(layer.layer)), np.mean(options, axis=0), atol=1e-5)
