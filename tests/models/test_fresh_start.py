"""Residual layers of a fresh training add nothing; all other weights stay as they were drawn."""

import numpy as np
import pytest

from mobiledets_tf import architecture
from mobiledets_tf.compat import keras
from mobiledets_tf.models.fresh_start import residual_scales, zero_residual_scales
from mobiledets_tf.models.ssdlite import build_detector


@pytest.mark.parametrize("name", architecture.PUBLISHED)
def test_only_the_last_scale_of_residual_layers_is_zero(name):
    network = architecture.load(name).scaled(0.25)
    detector = build_detector(network, 2, 96)
    weights = {weight.name: weight for weight in detector.weights}
    before = {key: weight.numpy() for key, weight in weights.items()}
    zero_residual_scales(network, weights)
    changed = {key for key, weight in weights.items() if not np.array_equal(weight.numpy(), before[key])}
    adds = [layer for layer in detector.layers if isinstance(layer, keras.layers.Add)]
    assert changed == set(residual_scales(network)) and len(changed) == len(adds) > 0
    assert all(not weights[key].numpy().any() for key in changed)
    # What is added to a layer's input is zero, so the sum is the input.
    probe = keras.Model(detector.inputs, [[*adds[0].input, adds[0].output]])
    image = np.random.default_rng(0).uniform(-1, 1, (1, 96, 96, 3)).astype(np.float32)
    ((first, second, total),) = probe(image)
    branch, kept = (first, second) if not np.any(first) else (second, first)
    assert not np.any(branch) and np.any(kept)
    np.testing.assert_array_equal(kept, total)
