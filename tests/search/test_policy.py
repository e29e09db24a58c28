"""Reward, baseline, schedule and controller against numbers that can be computed by hand."""

import numpy as np
import pytest

from mobiledets_tf.errors import InputError
from mobiledets_tf.search.controller import Controller
from mobiledets_tf.search.reward import (
    DebiasedAverage,
    absolute_reward,
    band_reward,
    mnas_hard_reward,
    mnas_reward,
)
from mobiledets_tf.search.schedule import Schedule, warm_up
from mobiledets_tf.search_space import SKIP, OneOf, get_space


def test_absolute_reward_punishes_both_sides():
    assert absolute_reward(0.3, 100.0, 100.0, -0.1) == 0.3
    assert absolute_reward(0.3, 150.0, 100.0, -0.1) == pytest.approx(0.25)
    assert absolute_reward(0.3, 50.0, 100.0, -0.1) == pytest.approx(0.25)


def test_mnas_rewards():
    assert mnas_reward(0.3, 200.0, 100.0, -0.5) == pytest.approx(0.3 / 2**0.5)
    assert mnas_reward(0.3, 50.0, 100.0, -0.5) == pytest.approx(0.3 * 2**0.5)
    assert mnas_hard_reward(0.3, 200.0, 100.0, -0.5) == pytest.approx(0.3 / 2**0.5)
    assert mnas_hard_reward(0.3, 50.0, 100.0, -0.5) == 0.3


def test_inside_a_band_quality_alone_is_paid():
    assert band_reward(0.3, 150.0, 100.0, -0.1) == 0.3


def test_baseline_has_no_pull_to_zero():
    average = DebiasedAverage(0.95)
    assert average.value == 0
    average.update(2.0)
    assert average.value == pytest.approx(2.0)
    average.update(4.0)
    assert average.value == pytest.approx((0.95 * 0.05 * 2 + 0.05 * 4) / (1 - 0.95**2))


def test_schedule_values():
    schedule = Schedule(steps=100, controller_rate=1.0)
    assert schedule.op_warmup_probability(0) == 1
    assert schedule.filter_warmup_probability(10) == pytest.approx(0.6)
    assert schedule.op_warmup_probability(25) == 0
    assert schedule.controller_learning_rate(24) == 0
    assert schedule.controller_learning_rate(25) == 1
    assert schedule.controller_learning_rate(100) == pytest.approx(10)


def test_warm_up_after_the_delay_is_refused():
    with pytest.raises(InputError, match="rl_delay"):
        Schedule(steps=100, op_warmup=0.5, rl_delay=0.25)


def test_warm_up_takes_the_mix_and_the_largest_width():
    space, rng = get_space("ibn"), np.random.default_rng(0)
    decisions = np.zeros(len(space.decisions), np.int32)
    warmed = warm_up(space, decisions, Schedule(steps=100), 0, rng)
    for value, (_, node) in zip(warmed, space.decisions, strict=True):
        assert value == len(node.choices) - (node.tag == "filters")
    assert (warm_up(space, decisions, Schedule(steps=100), 50, rng) == decisions).all()


def test_path_dropout_leaves_out_skippable_layers():
    space, rng = get_space("ibn"), np.random.default_rng(0)
    decisions = np.zeros(len(space.decisions), np.int32)
    warmed = warm_up(space, decisions, Schedule(steps=100), 50, rng, path_dropout=0.5)
    skippable = [SKIP in node.choices for _, node in space.decisions]
    left_out = [node.choices[value] == SKIP for value, (_, node) in zip(warmed, space.decisions, strict=True)]
    assert 4 < sum(left_out) < sum(skippable) - 4
    assert all(can for can, out in zip(skippable, left_out, strict=True) if out)


def test_controller_learns_what_is_paid():
    space, rng = get_space("ibn"), np.random.default_rng(0)
    controller, baseline = Controller(space), DebiasedAverage()
    assert controller.entropy() == pytest.approx(1)
    for _ in range(400):
        decisions = controller.sample(rng)
        reward = float(np.mean(decisions == 0))
        baseline.update(reward)
        controller.update(decisions[None], [reward - baseline.value], 0.05)
    assert np.mean(controller.best() == 0) > 0.8
    assert controller.entropy() < 0.9


def test_controller_state_round_trip():
    space, rng = get_space("ibn"), np.random.default_rng(0)
    first, second = Controller(space), Controller(space)
    for step in range(5):
        first.update(first.sample(rng, 2), [step - 2.0, 1.0], 0.1)
    second.restore(first.state())
    decisions = first.sample(np.random.default_rng(1), 1)
    for controller in (first, second):
        controller.update(decisions, [1.0], 0.1)
    for ours, theirs in zip(first.logits, second.logits, strict=True):
        np.testing.assert_array_equal(ours, theirs)


NESTED = (OneOf(("plain", OneOf(("a", "b", "c"), "op")), "op"), OneOf((1, 2), "filters"))


def test_decisions_off_the_path_neither_count_nor_learn():
    controller = Controller(NESTED)
    networks = np.array([[0, 2, 1], [1, 2, 1]])
    np.testing.assert_allclose(
        controller.log_probability(networks), [np.log(1 / 4), np.log(1 / 4) + np.log(1 / 3)]
    )
    controller.update(networks[:1], [1.0], 0.1)
    assert (controller.logits[1] == 0).all() and controller.logits[0][0] > 0 > controller.logits[0][1]
    controller.update(networks[1:], [1.0], 0.1)
    assert controller.logits[1][2] > 0


def test_update_is_the_mean_of_replicas_over_the_mean_of_their_squares():
    """One step of Adam without momentum, written out for one decision with two options."""
    controller = Controller((OneOf(("a", "b"), "op"),))
    controller.update(np.array([[0], [0], [1]]), [3.0, 1.0, 2.0], 0.1)
    gradients = np.array([[1.5, -1.5], [0.5, -0.5], [-1.0, 1.0]])
    expected = 0.1 * gradients.mean(axis=0) / np.sqrt((gradients**2).mean(axis=0))
    np.testing.assert_allclose(controller.logits[0], expected, rtol=1e-6)


def test_a_policy_that_is_drawn_from_inside_a_band_learns_against_what_was_expected_there():
    """The option, less its probability inside the band, which is not that of the policy."""
    controller = Controller((OneOf(("a", "b", "c"), "op"), OneOf((1, 2), "filters")))
    expected = [np.array([0.7, 0.2, 0.1]), np.array([0.5, 0.5])]
    controller.update(np.array([[0, 1]]), [2.0], 0.1, expected)
    for row, wanted in zip(controller.logits, ([0.3, -0.2, -0.1], [-0.5, 0.5]), strict=True):
        # One sample: Adam without momentum divides by its own size.
        np.testing.assert_allclose(row, 0.1 * np.sign(wanted), rtol=1e-6)
    controller.update(np.array([[1, 0]]), [0.5], 0.1, expected)
    second = 0.5 * np.array([-0.7, 0.8, -0.1])
    squares = (0.999 * (2 * np.array([0.3, -0.2, -0.1])) ** 2 + second**2) / (1 + 0.999)
    np.testing.assert_allclose(
        controller.logits[0], 0.1 * np.array([1, -1, -1]) + 0.1 * second / np.sqrt(squares), atol=1e-7
    )


def test_a_controller_starts_from_a_policy():
    controller = Controller((OneOf(("a", "b", "c"), "op"), OneOf((1, 2), "filters")))
    controller.start_from([np.array([0.6, 0.4, 0.0]), np.array([0.25, 0.75])])
    first, second = controller.probabilities()
    np.testing.assert_allclose(first, [0.6, 0.4, 0.0], atol=1e-5)
    np.testing.assert_allclose(second, [0.25, 0.75])
    # What has no probability can still be learnt.
    assert first[2] > 0


def test_entropy_weight_flattens_the_policy():
    plain, open_one = Controller(get_space("ibn")), Controller(get_space("ibn"), entropy_weight=1.0)
    rng = np.random.default_rng(0)
    state = plain.state() | {"logits": rng.normal(0, 2, np.shape(plain.state()["logits"])).tolist()}
    for controller in (plain, open_one):
        controller.restore(state)
        before = controller.entropy()
        for _ in range(50):
            controller.update(controller.sample(rng, 1), [0.0], 0.1)
    assert plain.entropy() == before < open_one.entropy()


def test_samples_follow_the_policy():
    controller = Controller((OneOf(("a", "b", "c"), "op"), OneOf((1, 2), "filters")))
    state = controller.state() | {"logits": [np.log([0.5, 0.3, 0.2]).tolist(), [0.0, np.log(3), 0.0]]}
    controller.restore(state)
    drawn = controller.sample(np.random.default_rng(0), 20_000)
    shares = [np.bincount(drawn[:, i], minlength=n) / len(drawn) for i, n in ((0, 3), (1, 2))]
    np.testing.assert_allclose(shares[0], [0.5, 0.3, 0.2], atol=0.02)
    np.testing.assert_allclose(shares[1], [0.25, 0.75], atol=0.02)
