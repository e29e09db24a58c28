"""Reward, baseline, schedule and controller against numbers that can be computed by hand."""

import numpy as np
import pytest

from mobiledets_tf.errors import InputError
from mobiledets_tf.search.controller import Controller
from mobiledets_tf.search.reward import DebiasedAverage, absolute_reward
from mobiledets_tf.search.schedule import Schedule, warm_up
from mobiledets_tf.search_space import get_space


def test_absolute_reward_punishes_both_sides():
    assert absolute_reward(0.3, 100.0, 100.0, -0.1) == 0.3
    assert absolute_reward(0.3, 150.0, 100.0, -0.1) == pytest.approx(0.25)
    assert absolute_reward(0.3, 50.0, 100.0, -0.1) == pytest.approx(0.25)


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


def test_controller_learns_what_is_paid():
    space, rng = get_space("ibn"), np.random.default_rng(0)
    controller, baseline = Controller(space), DebiasedAverage()
    assert controller.entropy() == pytest.approx(1)
    for _ in range(400):
        decisions = controller.sample(rng)
        reward = float(np.mean(decisions == 0))
        controller.update(decisions, reward - baseline.value if baseline.weight else 0.0, 0.05)
        baseline.update(reward)
    assert np.mean(controller.best() == 0) > 0.8
    assert controller.entropy() < 0.9


def test_controller_state_round_trip():
    space, rng = get_space("ibn"), np.random.default_rng(0)
    first, second = Controller(space), Controller(space)
    for step in range(5):
        first.update(first.sample(rng), step - 2.0, 0.1)
    second.restore(first.state())
    decisions = first.sample(np.random.default_rng(1))
    for controller in (first, second):
        controller.update(decisions, 1.0, 0.1)
    for ours, theirs in zip(first.logits, second.logits, strict=True):
        np.testing.assert_array_equal(ours, theirs)
