"""Split-half reliability: of qualities whose signal and noise are known, and by hand."""

import numpy as np
import pytest

from mobiledets_tf.search.reliability import ENOUGH, kendall_tau, split_half

NETWORKS, BATCHES = 16, 8


def _values(spread, noise, networks=NETWORKS, batches=BATCHES, seed=0):
    """Draws networks with a quality of their own, batches of a difficulty of their own, and noise."""
    rng = np.random.default_rng(seed)
    own, common = rng.normal(0, spread, (networks, 1)), rng.normal(0, 3.0, batches)
    return own + common + rng.normal(0, noise, (networks, batches))


def test_signal_without_noise_is_certain():
    found = split_half(_values(1.0, 0.0))
    assert found.tau == pytest.approx(1.0) and not found.blind
    assert found.noise == pytest.approx(0.0, abs=1e-12) and 0.5 < found.spread < 1.5
    assert found.networks == NETWORKS


def test_noise_without_signal_is_blind():
    taus = [split_half(_values(0.0, 1.0, seed=seed)).tau for seed in range(20)]
    assert abs(np.mean(taus)) < 0.1
    assert np.mean([split_half(_values(0.0, 1.0, seed=seed)).blind for seed in range(20)]) > 0.8
    # Batches with different boxes alone, the same for all networks: no order at all.
    found = split_half(_values(0.0, 0.0))
    assert found.blind and found.spread == pytest.approx(0.0, abs=1e-12)


def test_signal_and_noise_come_apart():
    """A mean over 200 batches has a standard deviation of noise / sqrt(200)."""
    found = split_half(_values(1.0, 2.0, networks=100, batches=200))
    assert found.noise == pytest.approx(2.0 / np.sqrt(200), rel=0.05)
    assert found.spread == pytest.approx(1.0, rel=0.2)
    shares = [split_half(_values(1.0, noise, networks=50)).tau for noise in (0.3, 1.0, 3.0)]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.7 > ENOUGH > shares[-1]


def test_noise_by_hand():
    """Means of networks and batches are all 1; the rest is 1 off in four of six places."""
    found = split_half(np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]]))
    # Variance of one value 4 / ((3 - 1) * (2 - 1)), of a mean of two half of it.
    assert found.noise == pytest.approx(1.0) and found.spread == 0
    assert found.tau == pytest.approx(-1.0) and found.blind


@pytest.mark.parametrize(
    "values",
    [
        np.arange(16.0)[:, None],
        np.ones((16, 8)),
        np.arange(16.0).reshape(2, 8),
        np.zeros((16, 0)),
        np.full((16, 8), np.nan),
        np.full((16, 8), -np.inf),
    ],
    ids=["one batch", "all alike", "two networks", "no batch", "no boxes", "not finite"],
)
def test_what_tells_nothing_is_blind(values):
    found = split_half(values)
    assert found.tau is None and found.blind and found.networks == len(values)
    assert np.isfinite([found.spread, found.noise]).all()


def test_batches_without_boxes_are_left_out():
    values = _values(1.0, 0.5)
    with_holes = np.insert(values, [2, 5], np.nan, axis=1)
    assert split_half(with_holes) == split_half(values)
    # One network whose loss is not finite on a batch: that batch compares nothing.
    broken = np.insert(values, 3, 0.0, axis=1)
    broken[4, 3] = -np.inf
    assert split_half(broken) == split_half(values)


def test_tau_counts_pairs():
    # Of six pairs five are in the same order, one in the other.
    assert kendall_tau([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx((5 - 1) / 6)
    assert kendall_tau([1, 1, 1], [1, 2, 3]) is None and kendall_tau([1, 2], [5, 5]) is None
