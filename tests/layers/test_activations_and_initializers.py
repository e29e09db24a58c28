"""Golden values of h-swish, statistics of the initialisers."""

import math

import numpy as np
import pytest

from mobiledets_tf import layers
from mobiledets_tf.compat import keras, tf


@pytest.mark.parametrize(
    "x, y",
    [
        (-4.0, 0.0),
        (-3.0, 0.0),
        (-1.5, -0.375),
        (-1.0, -1 / 3),
        (0.0, 0.0),
        (1.0, 2 / 3),
        (1.5, 1.125),
        (3.0, 3.0),
        (7.0, 7.0),
    ],
)
def test_hard_swish(x, y):
    assert float(layers.hard_swish(tf.constant(x))) == pytest.approx(y, abs=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_hard_swish_keeps_shape_and_dtype(dtype):
    y = layers.hard_swish(tf.ones((2, 3), dtype))
    assert (y.shape, y.dtype) == ((2, 3), tf.as_dtype(dtype))


def test_hard_swish_gradient():
    x = tf.constant([-4.0, -1.0, 0.0, 1.0, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layers.hard_swish(x)
    # (2x + 3) / 6 between -3 and 3.
    np.testing.assert_allclose(tape.gradient(y, x), [0, 1 / 6, 1 / 2, 5 / 6, 1], atol=1e-6)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_depthwise_he_normal_counts_one_channel(kernel_size):
    keras.utils.set_random_seed(3)
    values = layers.DepthwiseHeNormal()((kernel_size, kernel_size, 4096, 1)).numpy()
    stddev = math.sqrt(2 / kernel_size**2)
    assert values.std() == pytest.approx(stddev, rel=0.01)
    assert abs(values.mean()) < 0.01 * stddev
    # Truncated at two deviations of the normal that is 1 / 0.8796 wider.
    assert np.abs(values).max() == pytest.approx(2 * stddev / 0.87962566, rel=0.01)


def test_depthwise_he_normal_seeds():
    shape = (3, 3, 8, 1)
    seeded = layers.DepthwiseHeNormal(5)
    np.testing.assert_array_equal(seeded(shape), seeded(shape))
    np.testing.assert_array_equal(seeded(shape), layers.DepthwiseHeNormal(5)(shape))
    assert np.abs(seeded(shape) - layers.DepthwiseHeNormal(6)(shape)).max() > 0.1
    assert np.abs(layers.DepthwiseHeNormal()(shape) - layers.DepthwiseHeNormal()(shape)).max() > 0.1
    again = keras.initializers.deserialize(keras.initializers.serialize(seeded))
    np.testing.assert_array_equal(again(shape), seeded(shape))


def test_the_global_seed_decides():
    def kernels():
        keras.utils.set_random_seed(11)
        layer = layers.InvertedBottleneck(16)
        layer(tf.zeros((1, 8, 8, 16)))
        return [weight.numpy() for weight in layer.weights if "kernel" in weight.name]

    first, second = kernels(), kernels()
    assert len(first) == 3
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_full_convolutions_start_he_normal_and_norms_as_identity():
    keras.utils.set_random_seed(3)
    layer = layers.FusedInvertedBottleneck(128, expansion=8)
    layer(tf.zeros((1, 4, 4, 64)))
    values = {weight.name.split("/", 1)[1].split(":")[0]: weight.numpy() for weight in layer.weights}
    expand, project = (values[f"{layer.name}_{role}/kernel"] for role in ("expand", "project"))
    assert expand.std() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.01)
    assert project.std() == pytest.approx(math.sqrt(2 / 512), rel=0.01)
    for name, value in values.items():
        if "_bn/" in name:
            assert np.unique(value) == (1 if name.endswith(("gamma", "variance")) else 0), name
