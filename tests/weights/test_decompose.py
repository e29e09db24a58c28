"""Kernels as products: exact where the rank allows it, else as far off as the discarded singular values."""

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.weights import decompose

RNG = np.random.default_rng(3)


def _full(pointwise, depthwise):
    """[k, k, in, out] of a pointwise convolution and a depthwise one behind it."""
    return np.einsum("im,abm->abim", pointwise[0, 0], depthwise[..., 0])


def test_rank_one_kernels_come_back_exactly():
    kernel = _full(RNG.normal(size=(1, 1, 6, 9)), RNG.normal(size=(3, 3, 9, 1)))
    spatial, mix, error = decompose.depthwise_and_pointwise(kernel)
    assert spatial.shape == (3, 3, 9, 1) and mix.shape == (1, 1, 6, 9)
    np.testing.assert_allclose(_full(mix, spatial), kernel, atol=1e-12)
    assert error < 1e-12
    kernel = RNG.normal(size=(5, 5, 6, 1)) * RNG.normal(size=(1, 1, 6, 4))
    spatial, mix, error = decompose.depthwise_then_pointwise(kernel)
    np.testing.assert_allclose(spatial * mix, kernel, atol=1e-12)
    assert error < 1e-12


@pytest.mark.parametrize(("split", "axis"), [("and", 3), ("then", 2)])
def test_the_error_is_that_of_the_discarded_singular_values(split, axis):
    kernel = RNG.normal(size=(3, 3, 5, 7))
    spatial, mix, error = getattr(decompose, f"depthwise_{split}_pointwise")(kernel)
    again = _full(mix, spatial) if split == "and" else spatial * mix
    matrices = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], 9, -1)
    discarded = np.concatenate([np.linalg.svd(m, compute_uv=False)[1:] for m in matrices])
    assert np.linalg.norm(kernel - again) == pytest.approx(np.linalg.norm(discarded))
    assert error == pytest.approx(np.linalg.norm(discarded) / np.linalg.norm(kernel))


def _tucker(inputs, core, outputs):
    return np.einsum("ir,abrs,so->abio", inputs[0, 0], core, outputs[0, 0])


def test_a_tucker_kernel_of_full_rank_comes_back_exactly():
    kernel = RNG.normal(size=(3, 3, 6, 8))
    *parts, error = decompose.tucker(kernel, 6, 8)
    np.testing.assert_allclose(_tucker(*parts), kernel, atol=1e-12)
    assert error < 1e-12
    # One that has a lower rank does so at that rank.
    low = _tucker(RNG.normal(size=(1, 1, 6, 2)), RNG.normal(size=(3, 3, 2, 3)), RNG.normal(size=(1, 1, 3, 8)))
    *parts, error = decompose.tucker(low, 2, 3)
    np.testing.assert_allclose(_tucker(*parts), low, atol=1e-12)
    assert error < 1e-12


def test_a_truncated_tucker_kernel_misses_what_its_bases_discard():
    kernel = RNG.normal(size=(3, 3, 6, 8))
    inputs, core, outputs, error = decompose.tucker(kernel, 3, 5)
    unfolded = np.moveaxis(kernel, 2, 0).reshape(6, -1)
    first = np.linalg.svd(unfolded, compute_uv=False)[3:]
    kept = np.einsum("ir,abio->abro", inputs[0, 0], kernel)
    second = np.linalg.svd(np.moveaxis(kept, 3, 0).reshape(8, -1), compute_uv=False)[5:]
    missed = np.linalg.norm(kernel - _tucker(inputs, core, outputs))
    assert missed**2 == pytest.approx((first**2).sum() + (second**2).sum())
    assert error == pytest.approx(missed / np.linalg.norm(kernel))
    np.testing.assert_allclose(inputs[0, 0].T @ inputs[0, 0], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(outputs[0, 0] @ outputs[0, 0].T, np.eye(5), atol=1e-12)


@pytest.mark.parametrize(("one", "other"), [(1, 3), (3, 1)])
def test_composed_kernels_convolve_as_two(one, other):
    image = tf.constant(RNG.normal(size=(1, 9, 9, 4)))
    first, second = RNG.normal(size=(one, one, 4, 5)), RNG.normal(size=(other, other, 5, 6))
    both = tf.nn.conv2d(tf.nn.conv2d(image, first, 1, "SAME"), second, 1, "SAME")
    np.testing.assert_allclose(
        tf.nn.conv2d(image, decompose.compose(first, second), 1, "SAME"), both, atol=1e-10
    )


def test_a_composed_depthwise_kernel_convolves_as_two():
    image = tf.constant(RNG.normal(size=(1, 9, 9, 4)))
    point, depth = RNG.normal(size=(1, 1, 4, 5)), RNG.normal(size=(3, 3, 5, 1))
    both = tf.nn.depthwise_conv2d(tf.nn.conv2d(image, point, 1, "SAME"), depth, [1] * 4, "SAME")
    whole = decompose.compose_depthwise(point, depth)
    np.testing.assert_allclose(tf.nn.conv2d(image, whole, 1, "SAME"), both, atol=1e-10)
