"""Agents against qualities whose best network is known: what they propose, measure, keep and learn."""

import dataclasses
import json

import numpy as np
import pytest

from mobiledets_tf import latency
from mobiledets_tf.errors import InputError
from mobiledets_tf.search import proposals
from mobiledets_tf.search.agent import make_agent
from mobiledets_tf.search.controller import Controller
from mobiledets_tf.search.known import Known, known_networks
from mobiledets_tf.search.schedule import Schedule
from mobiledets_tf.search.settings import Objective, Search
from mobiledets_tf.search_space import get_space

TARGET = 2e7


@pytest.fixture(scope="module")
def model():
    return latency.madds_model(get_space("ibn_fused_tucker", depth_multiplier=0.25), (96, 96), 10)


@pytest.fixture(scope="module")
def known(model):
    found = known_networks(Objective(model, TARGET).networks)
    assert len(found) == 4
    return found


def _search(model, steps=64, objectives=None, rate=0.05, **changed):
    schedule = Schedule(steps, 0.0, 0.0, 0.25, controller_rate=rate)
    return Search("records", "folder", objectives or (Objective(model, TARGET),), schedule, **changed)


class Planted:
    """Quality counts the decisions that a hidden network of the band shares; -inf and nan are put in."""

    def __init__(self, objective, seed=100, noise=0.0):
        self._rng = np.random.default_rng(seed)
        even = proposals.even(objective.latency.space)
        self.hidden = objective.networks.sample(even, self._rng, 1)[0]
        self._noise = noise
        self.seen = []

    def exact(self, networks):
        return (np.asarray(networks) == self.hidden).mean(axis=-1)

    def __call__(self, networks):
        self.seen.append(np.array(networks))
        return self.exact(networks) + self._rng.normal(0, self._noise, len(networks))


def _run(agent, search, quality, start=0, stop=None, replicas=1):
    """The proposals of a search's steps."""
    proposed = []
    for step in range(start, stop or search.schedule.steps):
        rng = np.random.default_rng((0, step))
        proposed.append(agent.propose(rng, replicas))
        if agent.measures_at(step):
            costs = agent.objective.latency.predict(proposed[-1])
            agent.learn(step, proposed[-1], costs, quality, rng)
    return np.concatenate(proposed)


def test_evolution_measures_the_known_networks_first_and_keeps_the_best_inside(model, known):
    search = _search(model, population=6, children=5, rounds=4)
    agent = make_agent(search, search.objectives[0], known)
    quality = Planted(agent.objective)
    proposed = _run(agent, search, quality)
    assert agent.objective.networks.contains(proposed).all()
    # The delay ends after 16 of 64 steps; a round every twelfth.
    assert [step for step in range(64) if agent.measures_at(step)] == [27, 39, 51, 63]
    first = {tuple(row) for row in quality.seen[0]}
    assert {one.decisions for one in known} <= first
    for networks in quality.seen:
        assert len(networks) == 11 == len(np.unique(networks, axis=0))
        assert agent.objective.networks.contains(networks).all()
    qualities = quality.exact(agent.members)
    assert len(qualities) == 6 and (np.diff(qualities) <= 0).all()
    assert qualities[0] == max(quality.exact(networks).max() for networks in quality.seen)
    found = agent.best(np.random.default_rng(0), 3)
    assert [source for _, source in found] == ["population"] * 3
    assert [tuple(network) for network, _ in found] == [tuple(member) for member in agent.members[:3]]


@pytest.fixture(scope="module")
def few(few_space):
    """(objective, two networks inside) of the space of few networks."""
    objective = Objective(latency.madds_model(few_space, (96, 96), 10), 7e6)
    drawn = objective.networks.sample(proposals.even(few_space), np.random.default_rng(7), 2)
    return objective, [Known(f"known_{i}", tuple(row.tolist()), 1.0, 0) for i, row in enumerate(drawn)]


def test_evolution_climbs_to_the_best_network_of_the_band(few):
    objective, known = few
    changed = {"population": 8, "children": 8, "rounds": 16, "mutation_rate": 0.4}
    search = _search(objective.latency, 32, (objective,), **changed)
    even = proposals.even(search.latency.space)
    ends, drawn = [], []
    for seed in range(4):
        agent = make_agent(search, objective, known)
        quality = Planted(objective, seed)
        _run(agent, search, quality)
        best = [quality.exact(networks).max() for networks in quality.seen]
        # Members are measured again, so the best of a round is never worse than that of the one before.
        assert best == sorted(best)
        ends.append(best[-1])
        # As many draws as networks that were new in a round.
        draws = objective.networks.sample(even, np.random.default_rng(seed), 16 * 8)
        drawn.append(quality.exact(draws).max())
    # Of 5,100 networks in the band one has quality 1.
    assert np.mean(ends) > 0.97 and np.mean(drawn) < 0.92


def test_evolution_puts_networks_without_a_quality_last(model, known):
    search = _search(model, population=3, children=2)
    agent = make_agent(search, search.objectives[0], known)
    values = np.array([np.nan, 0.1, -np.inf, 0.3, np.nan])
    networks, qualities = agent.learn(63, None, None, lambda networks: values, np.random.default_rng(0))
    np.testing.assert_array_equal(qualities, values)
    assert agent.members[:2] == networks[[3, 1]].tolist() and len(agent.members) == 3


def test_without_known_networks_evolution_starts_from_the_whole_space(model, known):
    for changed, given in (({"region": "space"}, known), ({}, [])):
        search = _search(model, **changed)
        agent = make_agent(search, search.objectives[0], given)
        assert agent.members == []
        for ours, even in zip(agent.probabilities(), proposals.even(model.space), strict=True):
            np.testing.assert_array_equal(ours, even)
        assert agent.objective.networks.contains(agent.propose(np.random.default_rng(0), 20)).all()
        agent.learn(63, None, None, Planted(agent.objective), np.random.default_rng(0))
        assert len(agent.members) == search.population
        assert agent.entropy() < 0.9


@pytest.mark.parametrize(
    ("algorithm", "changed"), [("evolution", {"population": 5, "children": 4}), ("tunas", {}), ("random", {})]
)
def test_from_its_state_an_agent_goes_on_as_if_nothing_had_happened(model, known, algorithm, changed):
    search = _search(model, steps=20, algorithm=algorithm, **changed)
    whole, first, second = (make_agent(search, search.objectives[0], known) for _ in range(3))
    quality = Planted(whole.objective)
    expected = _run(whole, search, quality)
    before = _run(first, search, quality, 0, 13)
    second.restore(json.loads(json.dumps(first.state())))
    after = _run(second, search, quality, 13)
    np.testing.assert_array_equal(np.concatenate([before, after]), expected)
    assert second.state() == whole.state()
    for ours, theirs in zip(second.probabilities(), whole.probabilities(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("steps", "rounds", "devices"), [(64, 4, 1), (64, 4, 2), (101, 5, 3), (8, 4, 1)])
def test_each_device_has_all_its_rounds(model, steps, rounds, devices):
    objectives = tuple(
        Objective(dataclasses.replace(model, device=f"device_{index}"), TARGET) for index in range(devices)
    )
    search = _search(model, steps, objectives, rounds=rounds)
    agents = [make_agent(search, objective, []) for objective in search.steering]
    for turn, agent in enumerate(agents):
        mine = [step for step in range(turn, steps, devices) if agent.measures_at(step)]
        # The first 25 % teach nothing.
        assert mine[0] >= search.schedule.first_paid_step or rounds * devices > 0.75 * steps
        assert len(mine) == min(rounds, steps - search.schedule.first_paid_step)
        assert mine[-1] >= steps - devices


def test_a_constant_reward_in_a_band_teaches_nothing(few_space):
    """Inside the band some options are commoner than in the policy; that alone must not move it."""
    model = latency.madds_model(few_space, (96, 96), 10)
    band = Objective(model, 7e6).networks
    rng = np.random.default_rng(0)
    plain, corrected = Controller(few_space), Controller(few_space)
    policy = [rng.dirichlet(np.full(len(node.choices), 5.0)) for _, node in few_space.decisions]
    drawn = band.sample(policy, rng, 20_000)
    for controller, expected in ((plain, None), (corrected, band.marginals(policy))):
        controller.start_from(policy)
        before = np.concatenate(controller.logits)
        controller.update(drawn, np.ones(len(drawn)), 1.0, expected)
        controller.moved = np.abs(np.concatenate(controller.logits) - before).max()
    # In Adam's units: the mean gradient over the root of the mean square.
    assert corrected.moved < 0.04 < 0.3 < plain.moved


def test_tunas_in_the_band_climbs_a_noisy_quality(few):
    objective, known = few
    search = _search(objective.latency, 600, (objective,), algorithm="tunas", rate=0.03, region="space")
    agent = make_agent(search, objective, known)
    quality = Planted(objective, noise=0.1)
    proposed = _run(agent, search, quality, replicas=2)
    assert objective.networks.contains(proposed).all()
    exact = quality.exact(proposed)
    assert exact[-100:].mean() > 0.9 > 0.7 > exact[:200].mean()
    found = agent.best(np.random.default_rng(0), 5)
    assert [source for _, source in found] == ["policy", "argmax", "drawn", "drawn", "drawn"]
    inside = np.array([network for network, source in found if source != "argmax"])
    assert objective.networks.contains(inside).all()
    assert quality.exact(found[0][0]) == 1
    assert agent.entropy() < 0.5


def test_tunas_starts_round_the_known_networks(model, known):
    search = _search(model, algorithm="tunas")
    agent = make_agent(search, search.objectives[0], known)
    wanted = proposals.mixed([proposals.around(model.space, k.decisions, 0.15) for k in known])
    for ours, theirs in zip(agent.probabilities(), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_tunas_learns_nothing_from_batches_that_pay_nothing(model):
    search = _search(model, algorithm="tunas")
    agent = make_agent(search, search.objectives[0], [])
    rng, before = np.random.default_rng(0), agent.state()
    trained = agent.propose(rng, 2)
    costs = agent.objective.latency.predict(trained)
    for nothing in (np.nan, -np.inf):
        agent.learn(63, trained, costs, lambda networks, v=nothing: np.full(len(networks), v), rng)
    assert agent.state() == before
    agent.learn(63, trained, costs, lambda networks: np.array([np.nan, 1.0]), rng)
    assert agent.baseline.value == pytest.approx(1.0)


def test_random_learns_nothing(model, known):
    search = _search(model, algorithm="random")
    agent = make_agent(search, search.objectives[0], known)
    quality, before = Planted(agent.objective), agent.probabilities()
    proposed = _run(agent, search, quality)
    assert agent.objective.networks.contains(proposed).all()
    # After the delay it measures what was trained.
    np.testing.assert_array_equal(np.concatenate(quality.seen), proposed[16:])
    assert agent.state() == {}
    for ours, theirs in zip(agent.probabilities(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Mutations of the known networks, not the whole space.
    rng = np.random.default_rng(0)
    anywhere = agent.objective.networks.sample(proposals.even(model.space), rng, len(proposed))
    near, far = (
        np.mean([max((row == k.decisions).mean() for k in known) for row in networks])
        for networks in (proposed, anywhere)
    )
    assert near > far + 0.2


def test_a_released_search_names_its_network_where_the_band_is_empty(model):
    """Reward abs with a target that no network reaches: the policy's argmax is what TuNAS gives."""
    objective = Objective(model, 1e12, "abs")
    search = _search(model, objectives=(objective,), algorithm="tunas", extraction="argmax")
    agent = make_agent(search, objective, [])
    ((network, source),) = agent.best(np.random.default_rng(0), 1)
    assert source == "argmax" and (network == agent.controller.best()).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"algorithm": "evolution", "reward": "abs"}, "allowed reward: band"),
        ({"algorithm": "evolution", "quality_images": 0}, "quality_images is 0"),
        ({"population": 1}, "population is 1; allowed: 2 or more"),
        ({"mutation_rate": 0.0}, "mutation rate is 0.0"),
        ({"region": "knwn"}, "did you mean 'known'"),
    ],
)
def test_settings_that_no_agent_can_work_with_are_refused(model, changed, message):
    objective = Objective(model, TARGET, changed.pop("reward", "band"))
    with pytest.raises(InputError, match=message):
        _search(model, objectives=(objective,), **changed)
