"""The supernet gives the same numbers as the stand-alone networks it holds."""

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.models import build_detector, shared_op
from mobiledets_tf.models.supernet import Supernet, mix_option
from mobiledets_tf.search_space import decode, get_space, sample

SIZE, CLASSES, DEPTH = 96, 3, 0.25
SPACES = [("ibn", {}), ("ibn_fused", {}), ("ibn_fused_tucker", {})]
SPACES += [("ibn_fused_tucker", {"activation": "hard_swish", "se_ratio": 0.25})]


def _supernet(name, options, execution="sliced"):
    tf.random.set_seed(0)
    space = get_space(name, depth_multiplier=DEPTH, **options)
    return Supernet(space, CLASSES, SIZE, execution=execution)


def _run(supernet, images, decisions):
    decisions = tf.constant(decisions, tf.int32)
    return supernet(images, supernet.weights_of(decisions), decisions)


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


def test_mix_is_the_mean_of_all_options():
    supernet, images = _supernet("ibn", {}), _images()
    layer = supernet.layers[0]
    decisions = np.zeros(len(supernet.space.decisions), np.int32)
    stem = supernet.weights_of(tf.constant(decisions))["stem"]
    x = shared_op.run(supernet.stem.op, supernet.stem.norm, images, stem)

    def output(option):
        network = decisions.copy()
        network[layer.position.op] = option
        weights = supernet.weights_of(tf.constant(network))
        return layer(x, weights, tf.constant(network)).numpy()

    options = [output(option) for option in range(mix_option(layer.layer))]
    assert np.abs(options[0] - options[1]).max() > 1e-3
    np.testing.assert_allclose(output(mix_option(layer.layer)), np.mean(options, axis=0), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), SPACES)
def test_masked_equals_sliced(name, options):
    """Outputs, loss and gradients of single networks and of a mix of all options of some layers."""
    sliced, masked = _supernet(name, options), _supernet(name, options, execution="masked")
    for one, other in zip(sliced.banks, masked.banks, strict=True):
        other.rows.assign(one.rows)
    rng, images = np.random.default_rng(3), _images()
    for draw in range(3):
        decisions = sample(sliced.space, rng)
        if draw == 2:
            for layer in sliced.layers[::6]:
                decisions[layer.position.op] = mix_option(layer.layer)
        (boxes, logits, loss, wholes), others = (
            _loss_and_gradients(supernet, images, tf.constant(decisions)) for supernet in (sliced, masked)
        )
        np.testing.assert_allclose(boxes, others[0], atol=1e-5)
        np.testing.assert_allclose(logits, others[1], atol=1e-5)
        np.testing.assert_allclose(loss, others[2], rtol=1e-5)
        scale = max(float(tf.reduce_max(tf.abs(g))) for g in wholes)
        touched = np.concatenate([np.any(g, axis=1) for g in wholes])
        assert 0 < np.count_nonzero(touched) < len(touched)
        for bank, gradient, other in zip(sliced.banks, wholes, others[3], strict=True):
            np.testing.assert_allclose(gradient, other, atol=1e-5 * scale, err_msg=bank.label)


def _loss_and_gradients(supernet, images, decisions):
    extents = supernet.extents(decisions)
    taken = supernet.take(extents)
    rows = [mine.rows for mine in taken]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(rows)
        boxes, logits = supernet(images, supernet.weights(rows, extents), decisions)
        loss = tf.reduce_mean(boxes**2) + tf.reduce_mean(logits**2) + 1e-4 * supernet.l2(rows)
    gradients = tape.gradient(loss, rows, unconnected_gradients="zero")
    spread = supernet.execution.spread
    return boxes, logits, loss, [spread(*each) for each in zip(supernet.banks, taken, gradients, strict=True)]
