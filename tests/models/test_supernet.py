"""The supernet gives the same numbers as the stand-alone networks it holds."""

import functools
import multiprocessing
from concurrent import futures

import numpy as np
import pytest

from mobiledets_tf.compat import keras, tf
from mobiledets_tf.models import build_detector, shared_op
from mobiledets_tf.models.supernet import Supernet, mix_option
from mobiledets_tf.search_space import decode, get_space, sample

SIZE, CLASSES, DEPTH = 96, 3, 0.25
SPACES = [("ibn", {}), ("ibn_fused", {}), ("ibn_fused_tucker", {})]
SPACES += [("ibn_fused_tucker", {"activation": "hard_swish", "se_ratio": 0.25})]


@pytest.fixture
def as_written():
    """Graphs run as they are written, as in a search.

    TensorFlow's graph optimizer rewrites two graphs of one function differently, here by 1e-7; BN of
    the last 1x1 maps, over as many values as there are images, makes 1e-5 and more of that.
    """
    _optimize_graphs(False)
    yield
    _optimize_graphs(True)


def _optimize_graphs(wanted):
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not wanted})


def _supernet(name, options, execution="sliced", trained=True):
    """Trained: with scales that are not those of a start, at which a residual layer adds nothing."""
    keras.utils.set_random_seed(1)
    space = get_space(name, depth_multiplier=DEPTH, **options)
    supernet = Supernet(space, CLASSES, SIZE, execution=execution)
    if trained:
        for bank in supernet.banks:
            if not bank.is_kernel:
                bank.rows.assign_add(tf.random.uniform(bank.rows.shape, 0.0, 0.5))
    return supernet


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


def _images():
    return tf.constant(np.random.default_rng(0).uniform(-1, 1, (4, SIZE, SIZE, 3)), tf.float32)


@pytest.mark.parametrize(("name", "options"), SPACES)
def test_equals_the_stand_alone_network(name, options, as_written):
    supernet, rng, images = _supernet(name, options), np.random.default_rng(1), _images()
    for _ in range(2):
        decisions = sample(supernet.space, rng)
        expected = _stand_alone(supernet, decisions)(images, training=True)
        for ours, theirs in zip(_run(supernet, images, decisions), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def _output(supernet, layer, x, option):
    decisions = np.zeros(len(supernet.space.decisions), np.int32)
    decisions[layer.position.op] = option
    decisions = tf.constant(decisions)
    return layer(x, supernet.weights_of(decisions), decisions).numpy()


def _gradients(supernet, layer, x, option):
    """By x and by all shared weights, of a sum of the output with fixed numbers."""
    decisions = np.zeros(len(supernet.space.decisions), np.int32)
    decisions[layer.position.op] = option
    extents = supernet.extents(tf.constant(decisions))
    taken = supernet.take(extents)
    rows = [mine.rows for mine in taken]
    with tf.GradientTape() as tape:
        tape.watch([x, *rows])
        y = layer(x, supernet.weights(rows, extents), tf.constant(decisions))
        value = tf.reduce_sum(y * tf.random.stateless_normal(tf.shape(y), [0, 1]))
    in_x, *in_rows = tape.gradient(value, [x, *rows], unconnected_gradients="zero")
    spread = supernet.execution.spread
    return [in_x, *(spread(*of) for of in zip(supernet.banks, taken, in_rows, strict=True))]


@pytest.mark.parametrize("execution", ["sliced", "masked"])
def test_mix_is_the_mean_of_all_options(execution):
    supernet, images = _supernet("ibn_fused", {}, execution), _images()
    layer = supernet.layers[0]
    decisions = np.zeros(len(supernet.space.decisions), np.int32)
    stem = supernet.weights_of(tf.constant(decisions))["stem"]
    x = shared_op.run(supernet.stem.op, supernet.stem.norm, images, stem)
    mix = mix_option(layer.layer)

    options = [_output(supernet, layer, x, option) for option in range(mix)]
    assert np.abs(options[0] - options[1]).max() > 1e-3
    np.testing.assert_allclose(_output(supernet, layer, x, mix), np.mean(options, axis=0), atol=1e-5)

    by_option = [_gradients(supernet, layer, x, option) for option in range(mix)]
    for of_mix, *of_options in zip(_gradients(supernet, layer, x, mix), *by_option, strict=True):
        mean = np.mean(of_options, axis=0)
        np.testing.assert_allclose(of_mix, mean, atol=1e-5 * max(1.0, np.abs(mean).max()))


def test_options_start_as_nearly_the_same_function():
    supernet = _supernet("ibn_fused", {}, trained=False)
    first, second = supernet.layers[1:3]
    assert (first.layer.residual, second.layer.residual) == (False, True)
    stem = min(supernet.space.stem_filters.choices)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 24, 24, stem)), tf.float32)
    options = [_output(supernet, first, x, option) for option in range(len(first.layer.op.choices))]
    by_expansion = {
        expansion: [
            y.ravel()
            for y, o in zip(options, first.layer.op.choices, strict=True)
            if o.expansion == expansion
        ]
        for expansion in (4, 8)
    }
    for outputs in by_expansion.values():
        assert len(outputs) == 4
        assert np.corrcoef(outputs).min() > 0.8
    # A layer that adds to its input adds nothing yet.
    x = tf.constant(options[0])
    for option in range(len(second.layer.op.choices)):
        np.testing.assert_array_equal(_output(supernet, second, x, option), x)


def test_options_share_the_weights_of_a_role():
    supernet = _supernet("ibn_fused_tucker", {})
    layer = supernet.layers[1]

    def kernel(name, **wanted):
        """Of an operation of the option of these attributes."""
        has = [all(getattr(o, key) == value for key, value in wanted.items()) for o in layer.layer.op.choices]
        decisions = np.zeros(len(supernet.space.decisions), np.int32)
        decisions[layer.position.op] = has.index(True)
        (found,) = [
            value
            for key, value in supernet.detector_weights(decisions).items()
            if key.startswith(f"{layer.position.name}_{name}/") and key.endswith("kernel")
        ]
        return found

    small, large = (kernel("expand", op="fused", kernel_size=k, expansion=8) for k in (3, 5))
    np.testing.assert_array_equal(small, large[1:4, 1:4])
    expand = kernel("expand", op="ibn", expansion=8)
    np.testing.assert_array_equal(expand, large[2:3, 2:3])
    narrow, wide = (kernel("compress", op="tucker", in_ratio=r) for r in (0.25, 0.75))
    np.testing.assert_array_equal(narrow, wide[..., : narrow.shape[-1]])
    small, large = (kernel("depthwise", op="ibn", kernel_size=k) for k in (3, 5))
    np.testing.assert_array_equal(small, large[1:4, 1:4])
    small, large = (
        kernel("conv", op="tucker", kernel_size=k, out_ratio=r) for k, r in ((3, 0.25), (5, 0.75))
    )
    np.testing.assert_array_equal(small, large[1:4, 1:4, : small.shape[2], : small.shape[3]])
    project = kernel("project", op="ibn", expansion=8)
    for other in (kernel("project", op="tucker", out_ratio=0.75), kernel("project", op="fused", expansion=4)):
        assert other.shape[2] < project.shape[2]
        np.testing.assert_array_equal(other, project[:, :, : other.shape[2]])


@pytest.mark.parametrize(("name", "options"), SPACES[2:])
def test_weights_come_back_as_they_were_assigned_and_nothing_else_moves(name, options):
    """`assign` is the inverse of `detector_weights`, whose numbers are those of stand-alone networks."""
    supernet, rng = _supernet(name, options), np.random.default_rng(5)
    for _ in range(3):
        decisions = sample(supernet.space, rng)
        before = [bank.rows.numpy() for bank in supernet.banks]
        given = {
            key: rng.normal(size=value.shape).astype(np.float32)
            for key, value in supernet.detector_weights(decisions).items()
        }
        supernet.assign(decisions, given | {"stem_conv_bn/moving_mean": np.zeros(1), "step": np.zeros(())})
        found = supernet.detector_weights(decisions)
        assert found.keys() == given.keys()
        for key, value in given.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)
        # Every value is new, and none is twice in a network: so many of the banks' have changed.
        changed = sum(
            np.count_nonzero(bank.rows.numpy() != rows)
            for bank, rows in zip(supernet.banks, before, strict=True)
        )
        assert changed == sum(value.size for value in given.values())


def test_a_network_with_a_weight_missing_is_not_assigned():
    supernet, rng = _supernet("ibn", {}), np.random.default_rng(0)
    decisions = sample(supernet.space, rng)
    weights = {name: value + 1 for name, value in supernet.detector_weights(decisions).items()}
    weights.pop(list(weights)[-1])
    before = [bank.rows.numpy() for bank in supernet.banks]
    with pytest.raises(KeyError):
        supernet.assign(decisions, weights)
    for bank, rows in zip(supernet.banks, before, strict=True):
        np.testing.assert_array_equal(bank.rows, rows)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), SPACES)
def test_masked_equals_sliced(name, options):
    """Outputs, loss and gradients of single networks and of a mix of all options of some layers."""
    # TensorFlow does not give back graphs that are done with, gigabytes here; the end of a process does.
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(_compare_masked_with_sliced, name, options).result()


def _compare_masked_with_sliced(name, options):
    _optimize_graphs(False)
    sliced, masked = _supernet(name, options), _supernet(name, options, execution="masked")
    for one, other in zip(sliced.banks, masked.banks, strict=True):
        other.rows.assign(one.rows)
    rng, images = np.random.default_rng(3), _images()
    runs = [
        tf.function(functools.partial(_loss_and_gradients, supernet), autograph=False)
        for supernet in (sliced, masked)
    ]
    for draw in range(3):
        decisions = sample(sliced.space, rng)
        if draw == 2:
            for layer in sliced.layers[::6]:
                decisions[layer.position.op] = mix_option(layer.layer)
        (boxes, logits, loss, wholes), others = (run(images, tf.constant(decisions)) for run in runs)
        for ours, theirs in zip((boxes, logits), others[:2], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
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
