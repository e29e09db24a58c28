"""One kind of layer into another: what the layers compute, on random images."""

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.weights import layer_conversion as conversion
from mobiledets_tf.weights.channels import Folded
from mobiledets_tf.weights.moments import through

INPUTS, OUTPUTS = 8, 8
RNG = np.random.default_rng(5)
# Normally distributed, so that what layers assume of their input is true; few values are clipped.
IMAGE = RNG.normal(0.5, 1.0, (8, 12, 12, INPUTS))
MEAN, STD = np.full(INPUTS, 0.5), np.ones(INPUTS)


def _conv(x, part: Folded, activation: str | None):
    depthwise = part.kernel.shape[-1] == 1
    y = (
        tf.nn.depthwise_conv2d(x, part.kernel, [1] * 4, "SAME")
        if depthwise
        else (tf.nn.conv2d(x, part.kernel, 1, "SAME"))
    )
    y = y + part.offset
    if activation is None:
        return y
    return tf.nn.relu6(y) if activation == "relu6" else y * tf.nn.relu6(y + 3.0) / 6.0


def _run(parts: dict[str, Folded], activation: str = "relu6") -> np.ndarray:
    """The inside of the image: borders read padding, which is no linear range's middle."""
    x = tf.constant(IMAGE)
    for role, part in parts.items():
        x = _conv(x, part, None if role == "project" else activation)
    return x.numpy()[:, 2:-2, 2:-2]


def _part(kernel, offset=0.0):
    """With the moments that it has on the image."""
    kernel = np.asarray(kernel, np.float64)
    width = kernel.shape[2] if kernel.shape[-1] == 1 else kernel.shape[3]
    offset = np.full(width, offset)
    return Folded(kernel, offset, offset, np.ones(width))


def _measured(parts: dict[str, Folded], activation: str = "relu6") -> dict[str, Folded]:
    """The same layer with the moments that its convolutions have on the image."""
    x, found = tf.constant(IMAGE), {}
    for role, part in parts.items():
        y = _conv(x, part, None).numpy()
        found[role] = Folded(part.kernel, part.offset, y.mean((0, 1, 2)), y.std((0, 1, 2)))
        x = _conv(x, part, activation)
    return found


def _wanted(activation: str = "relu6", size: int = 3, **widths: int) -> conversion.Wanted:
    return conversion.Wanted(size, widths | {"project": OUTPUTS}, activation, MEAN, STD)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Root of the mean squared difference, in parts of the deviation."""
    return float(np.sqrt(((one - other) ** 2).mean()) / one.std())


def _fused(rank_one: bool) -> dict[str, Folded]:
    kernel = RNG.normal(0, 0.2, (3, 3, INPUTS, 16))
    if rank_one:
        kernel = RNG.normal(0, 0.5, (3, 3, 1, 16)) * RNG.normal(0, 0.5, (1, 1, INPUTS, 16))
    return _measured(
        {"expand": _part(kernel, 0.3), "project": _part(RNG.normal(0, 0.3, (1, 1, 16, OUTPUTS)))}
    )


def test_moments_are_those_of_many_draws():
    draws = RNG.normal(1.0, 2.0, 400_000)
    value, spread, slope = through("relu6", np.array([1.0]), np.array([2.0]))
    out = np.clip(draws, 0, 6)
    fit = np.polyfit(draws, out, 1)[0]
    np.testing.assert_allclose([value[0], spread[0], slope[0]], [out.mean(), out.std(), fit], rtol=0.02)
    np.testing.assert_array_equal(through(None, np.array([1.0]), np.array([2.0])), [[1.0], [2.0], [1.0]])


def test_a_fused_layer_of_rank_one_is_an_inverted_bottleneck():
    parts = _fused(rank_one=True)
    form = conversion.fused_form(parts, "relu6", "fused")
    made = conversion.to_ibn(form, _wanted(expand=16, depthwise=16))
    assert list(made.parts) == ["expand", "depthwise", "project"] and made.error < 1e-12
    assert _apart(_run(parts), _run(made.parts)) < 0.05
    # And in its own form, to the bit.
    again = conversion.to_fused(form, _wanted(expand=16))
    np.testing.assert_array_equal(again.parts["expand"].kernel, parts["expand"].kernel)
    assert again.how == "copied"


def test_another_fused_layer_is_nearly_one_and_says_how_nearly():
    parts = _fused(rank_one=False)
    made = conversion.to_ibn(conversion.fused_form(parts, "relu6", "fused"), _wanted(expand=16, depthwise=16))
    assert 0.3 < made.error < 0.9
    assert _apart(_run(parts), _run(made.parts)) < 1.0


def test_a_full_convolution_of_full_rank_is_a_tucker_layer():
    """A fused layer whose activation never clips is a full convolution."""
    kernel = RNG.normal(0, 0.02, (3, 3, INPUTS, 16))
    parts = _measured({"expand": _part(kernel, 3.0), "project": _part(RNG.normal(size=(1, 1, 16, OUTPUTS)))})
    form = conversion.fused_form(parts, "relu6", "fused")
    made = conversion.to_tucker(form, _wanted(compress=INPUTS, conv=OUTPUTS))
    assert made.error < 1e-12
    assert _apart(_run(parts), _run(made.parts)) < 0.08
    cut = conversion.to_tucker(form, _wanted(compress=4, conv=OUTPUTS))
    whole = form.full().kernel
    discarded = np.linalg.svd(np.moveaxis(whole, 2, 0).reshape(INPUTS, -1), compute_uv=False)[4:]
    assert cut.error == pytest.approx(np.linalg.norm(discarded) / np.linalg.norm(whole))


@pytest.mark.parametrize("activation", ["relu6", "hard_swish"])
def test_an_inverted_bottleneck_that_stays_linear_between_is_a_fused_layer(activation):
    at = 3.0 if activation == "relu6" else 6.0
    parts = _measured(
        {
            "expand": _part(RNG.normal(0, 0.1, (1, 1, INPUTS, 16)), at),
            "depthwise": _part(RNG.normal(0, 0.5, (3, 3, 16, 1)), -1.0),
            "project": _part(RNG.normal(0, 0.3, (1, 1, 16, OUTPUTS))),
        },
        activation,
    )
    form = conversion.fused_form(parts, activation, "ibn")
    made = conversion.to_fused(form, _wanted(activation, expand=16))
    assert made.how == "composed" and made.error is None
    assert _apart(_run(parts, activation), _run(made.parts, activation)) < 0.05


def test_separable_and_tucker_layers_have_a_fused_form():
    separable = _measured(
        {
            "depthwise": _part(RNG.normal(0, 0.5, (3, 3, INPUTS, 1)), 0.5),
            "project": _part(RNG.normal(0, 0.3, (1, 1, INPUTS, OUTPUTS))),
        }
    )
    form = conversion.fused_form(separable, "relu6", "dwsep_no_expansion")
    fused = conversion.to_fused(form, _wanted(expand=8 * INPUTS))
    np.testing.assert_allclose(_run(fused.parts), _run(separable), atol=1e-10)
    ibn = conversion.to_ibn(form, _wanted(expand=8 * INPUTS, depthwise=8 * INPUTS))
    assert ibn.error < 1e-12 and _apart(_run(separable), _run(ibn.parts)) < 0.05
    tucker = _measured(
        {
            "compress": _part(RNG.normal(0, 0.2, (1, 1, INPUTS, 4)), 3.0),
            "conv": _part(RNG.normal(0, 0.2, (3, 3, 4, 8)), 0.2),
            "project": _part(RNG.normal(0, 0.3, (1, 1, 8, OUTPUTS))),
        }
    )
    fused = conversion.to_fused(conversion.fused_form(tucker, "relu6", "tucker"), _wanted(expand=32))
    assert _apart(_run(tucker), _run(fused.parts)) < 0.05


def test_a_convolution_of_rank_one_for_each_input_is_a_separable_layer():
    kernel = RNG.normal(0, 0.1, (3, 3, INPUTS, 1)) * RNG.normal(0, 0.3, (1, 1, INPUTS, 16))
    parts = _measured({"expand": _part(kernel, 3.0), "project": _part(np.eye(16)[None, None])})
    form = conversion.fused_form(parts, "relu6", "fused")
    made = conversion.to_separable(form, conversion.Wanted(3, {"project": 16}, "relu6", MEAN, STD))
    assert made.error < 1e-6 and _apart(_run(parts), _run(made.parts)) < 0.08


def test_kernels_are_cut_and_widened_by_their_middle():
    kernel = RNG.normal(size=(5, 5, 2, 3))
    np.testing.assert_array_equal(conversion.middle(kernel, 3), kernel[1:4, 1:4])
    assert not conversion.middle(kernel, 7)[0].any()
    np.testing.assert_array_equal(conversion.middle(conversion.middle(kernel, 7), 5), kernel)
