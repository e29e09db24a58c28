"""BN statistics that a search or a file has not: means over some batches, against numpy."""

import numpy as np
import pytest

from mobiledets_tf.compat import keras, tf
from mobiledets_tf.weights.norm import recover_norm, unfold_norm

IMAGES, SIDE = 4, 8


def _network():
    """Two normalisations, the second of what the first gives, as in a detector."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(5, 3, use_bias=False)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.Conv2D(4, 1, use_bias=False)(keras.layers.ReLU(6.0)(x))
    return keras.Model(inputs, keras.layers.BatchNormalization(momentum=0.8)(x))


def _batches(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        tf.constant(rng.normal(number, 1 + number, (IMAGES, SIDE, SIDE, 3)), tf.float32)
        for number in range(count)
    ]


def _norms(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def test_statistics_are_the_means_over_batches():
    model, batches = _network(), _batches(3)
    before = [weight.numpy() for weight in model.trainable_weights]
    means, variances = [], []
    for batch in batches:
        x = model.layers[1](batch).numpy()
        means.append(x.mean(axis=(0, 1, 2)))
        variances.append(x.var(axis=(0, 1, 2)))
    for _ in range(2):
        # What was there before does not matter: a second pass over the same gives the same.
        recover_norm(model, batches)
        first, second = _norms(model)
        np.testing.assert_allclose(first.moving_mean, np.mean(means, axis=0), rtol=1e-4, atol=1e-5)
        # Of samples: a batch has IMAGES * 36 values, one less in the divisor.
        np.testing.assert_allclose(first.moving_variance, np.mean(variances, axis=0), rtol=0.02)
    assert (second.moving_mean.numpy() != 0).all() and (second.moving_variance.numpy() != 1).all()
    assert [norm.momentum for norm in _norms(model)] == [0.9, 0.8]
    for weight, value in zip(model.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_network_evaluates_as_it_was_trained():
    """On one batch moving statistics are that batch's: training and evaluation agree."""
    model, (batch,) = _network(), _batches(1)
    apart = np.abs(model(batch, training=False) - model(batch, training=True)).max()
    recover_norm(model, [batch])
    together = np.abs(model(batch, training=False) - model(batch, training=True)).max()
    assert together < 0.05 < 0.1 < apart


def test_folded_weights_keep_their_function_and_get_statistics():
    """A network computes the same in inference, and nearly the same in training mode."""
    model, batches = _network(), _batches(3)
    rng = np.random.default_rng(1)
    for norm in _norms(model):
        # As a .tflite file is imported: the identity, and a bias.
        norm.moving_variance.assign(tf.fill(norm.moving_variance.shape, 1.0 - norm.epsilon))
        norm.beta.assign(rng.normal(0, 0.3, norm.beta.shape))
    before = [model(batch, training=False).numpy() for batch in batches]
    folded = _network()
    folded.set_weights(model.get_weights())
    apart = np.abs(before[1] - folded(batches[1], training=True)).mean()
    unfold_norm(model, batches)
    for batch, expected in zip(batches, before, strict=True):
        np.testing.assert_allclose(model(batch, training=False), expected, atol=1e-5)
    x = np.concatenate([model.layers[1](batch).numpy() for batch in batches])
    first = _norms(model)[0]
    np.testing.assert_allclose(first.moving_mean, x.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    # Scale and offset are the deviation and the mean of what comes out.
    np.testing.assert_allclose(first.gamma, np.sqrt(first.moving_variance + first.epsilon), rtol=1e-5)
    one = _network()
    one.set_weights(model.get_weights())
    unfold_norm(one, batches[1:2])
    assert np.abs(before[1] - one(batches[1], training=True)).mean() < 0.05 * apart
    with pytest.raises(ValueError, match="no batches"):
        unfold_norm(model, [])
