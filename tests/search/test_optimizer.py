"""Momentum over shared weights against the same rule written out in numpy on whole tensors."""

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.errors import InputError
from mobiledets_tf.models.supernet import Supernet
from mobiledets_tf.search.optimizer import SharedMomentum
from mobiledets_tf.search_space import get_space, sample

DECAY, RATE = 0.9, 0.5


def _supernet(execution):
    tf.random.set_seed(0)
    return Supernet(get_space("ibn", depth_multiplier=0.25), 3, 96, execution=execution)


def _tensors(supernet):
    return [shared for op in supernet.ops.values() for shared in op.tensors]


def _step(supernet, optimizer, decisions, gradient, finite=True):
    """Applies gradients of `gradient(label, shape)`; returns whether they were applied."""
    extents = supernet.extents(tf.constant(decisions))
    taken = supernet.take(extents)
    gradients = []
    for bank, mine in zip(supernet.banks, taken, strict=True):
        tensors = supernet.execution.tensors(bank, mine.rows, [extents[t.label] for t in bank.tensors])
        rows = [
            np.reshape(gradient(shared.label, tensor.shape), [-1, bank.row])
            for shared, tensor in zip(bank.tensors, tensors, strict=True)
        ]
        gradients.append(tf.constant(np.concatenate(rows), tf.float32))
    return bool(optimizer.apply(gradients, taken, tf.constant(finite), tf.constant(RATE)))


def _momentum(supernet, optimizer):
    """Label -> momentum of a whole tensor."""
    found = {}
    for bank, slot in zip(supernet.banks, optimizer.slots, strict=True):
        for shared, rows in zip(bank.tensors, tf.split(slot, [t.count for t in bank.tensors]), strict=True):
            found[shared.label] = tf.reshape(rows, shared.shape)
    return found


def _gradient(label, shape):
    """The same for a weight whatever the network: kernels are counted from their middle."""
    counts = [np.arange(side) + 1.0 for side in shape]
    if len(shape) == 4:
        counts[:2] = (np.arange(side) - side // 2 for side in shape[:2])
    grids = np.meshgrid(*counts, indexing="ij")
    return np.sin(sum(grids, np.zeros(shape)) + len(label)).astype(np.float32)


def _reference(supernet, networks, update):
    """Weights and momentum after a step for each network."""
    weights = {shared.label: shared.full().numpy() for shared in _tensors(supernet)}
    momentum = {label: np.zeros_like(value) for label, value in weights.items()}
    for decisions in networks:
        extents = supernet.extents(tf.constant(decisions))
        for label in weights:
            cut = _cut(weights[label].shape, extents[label].size.numpy())
            gradient = np.zeros_like(weights[label])
            gradient[cut] = _gradient(label, gradient[cut].shape)
            moves = np.zeros(gradient.shape, bool)
            moves[cut] = True
            if update == "dense":
                moves[...] = True
            new = DECAY * momentum[label] - RATE * gradient
            momentum[label] = np.where(moves, new, momentum[label])
            weights[label] += np.where(moves, new, 0.0)
    return weights, momentum


def _cut(whole, size):
    """The middle of a kernel, the first of all channels."""
    begin = [
        (w - s) // 2 if len(whole) == 4 and axis < 2 else 0
        for axis, (w, s) in enumerate(zip(whole, size, strict=True))
    ]
    return tuple(slice(b, b + s) for b, s in zip(begin, size, strict=True))


@pytest.mark.parametrize("execution", ["sliced", "masked"])
@pytest.mark.parametrize("update", ["lazy", "dense"])
def test_equals_the_rule_on_whole_tensors(update, execution):
    supernet = _supernet(execution)
    rng = np.random.default_rng(0)
    networks = [sample(supernet.space, rng) for _ in range(3)]
    weights, momentum = _reference(supernet, networks, update)
    optimizer = SharedMomentum(supernet, update, DECAY, clip_norm=1e9)

    def gradient(label, shape):
        # A masked gradient holds no other numbers than zeros outside the network.
        return _gradient(label, tuple(shape))

    for decisions in networks:
        assert _step(supernet, optimizer, decisions, gradient)
    slots = _momentum(supernet, optimizer)
    for shared in _tensors(supernet):
        np.testing.assert_allclose(shared.full(), weights[shared.label], atol=2e-6, err_msg=shared.label)
        np.testing.assert_allclose(
            slots[shared.label], momentum[shared.label], atol=2e-6, err_msg=shared.label
        )


def test_gradients_are_clipped_by_their_global_norm():
    supernet = _supernet("sliced")
    before = supernet.stem.tensors[0].full().numpy()
    optimizer = SharedMomentum(supernet, "lazy", DECAY, clip_norm=1.0)
    decisions = sample(supernet.space, np.random.default_rng(0))
    total = sum(float(tf.size(t)) for ts in supernet.weights_of(tf.constant(decisions)).values() for t in ts)
    assert _step(supernet, optimizer, decisions, lambda label, shape: np.ones(shape))
    moved = supernet.stem.tensors[0].full().numpy() - before
    np.testing.assert_allclose(moved[moved != 0], -RATE / total**0.5, rtol=1e-2)


@pytest.mark.parametrize("execution", ["sliced", "masked"])
@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_what_is_not_finite_changes_nothing(execution, fault):
    supernet = _supernet(execution)
    before = [bank.rows.numpy() for bank in supernet.banks]
    optimizer = SharedMomentum(supernet, "dense", DECAY)
    decisions = sample(supernet.space, np.random.default_rng(0))
    value = np.nan if fault == "gradient" else 1.0
    finite = fault == "gradient"
    assert not _step(supernet, optimizer, decisions, lambda label, shape: np.full(shape, value), finite)
    for bank, slot, rows in zip(supernet.banks, optimizer.slots, before, strict=True):
        np.testing.assert_array_equal(bank.rows, rows)
        assert not np.any(slot)


def test_unknown_update_is_refused():
    with pytest.raises(InputError, match="did you mean 'lazy'"):
        SharedMomentum(_supernet("sliced"), "lzy")
