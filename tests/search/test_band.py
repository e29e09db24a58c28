"""Networks inside a band of cost, against going through all networks of a space of few options."""

import dataclasses
import re

import numpy as np
import pytest

from mobiledets_tf import latency
from mobiledets_tf.errors import InputError
from mobiledets_tf.latency.features import LayerOneHot
from mobiledets_tf.search import proposals
from mobiledets_tf.search.band import Band
from mobiledets_tf.search_space import get_space


@pytest.fixture(scope="module")
def models(few_space):
    """Multiply-adds; a fit whose coefficients are on both sides of 0, with an intercept."""
    count = LayerOneHot(few_space).count
    madds = latency.madds_model(few_space, (96, 96), 10)
    values = np.random.default_rng(0).normal(0.3, 1, count)
    fitted = dataclasses.replace(madds, device="board", unit="ms", intercept=3.5, coefficients=values)
    return {"madds": madds, "fitted": fitted}


CASES = [("madds", 7e6, 0.03), ("madds", 5e6, 0.001), ("fitted", 6.0, 0.03), ("fitted", 2.0, 0.05)]


class Exhaustive:
    """The same answers by going through all networks."""

    def __init__(self, model, networks, target, width):
        self.networks, costs = networks, model.predict(networks)
        self.inside = np.abs(costs / target - 1) <= width

    def of(self, rows):
        """[networks inside, decisions]: the value of each decision's option."""
        columns = self.networks[self.inside].T
        return np.stack([row[column] for row, column in zip(rows, columns, strict=True)], axis=1)

    def chances(self, policy):
        """Probability of each network inside."""
        return self.of(policy).prod(axis=1)

    def marginals(self, policy):
        chances = self.chances(policy)
        columns = zip(self.networks[self.inside].T, policy, strict=True)
        return [np.bincount(column, chances, len(row)) / chances.sum() for column, row in columns]


def _policy(space, rng, concentration):
    return [rng.dirichlet(np.full(len(node.choices), concentration)) for _, node in space.decisions]


@pytest.mark.parametrize(("name", "target", "width"), CASES)
def test_share_and_marginals_are_those_of_all_networks(models, few_networks, name, target, width):
    model, rng = models[name], np.random.default_rng(0)
    band, whole = Band(model, target, width), Exhaustive(model, few_networks, target, width)
    assert whole.inside.sum() > 100
    np.testing.assert_array_equal(band.contains(few_networks), whole.inside)
    shares, distances = [], []
    for _ in range(10):
        policy = _policy(model.space, rng, 5.0)
        shares.append(band.share(policy) / whole.chances(policy).sum())
        pairs = zip(band.marginals(policy), whole.marginals(policy), strict=True)
        distances.append(max(np.abs(ours - theirs).max() for ours, theirs in pairs))
    # Costs are rounded to a 32nd of the band; a narrow one has few steps of the 4,096 in all.
    coarse = 4 if width < 0.01 else 1
    np.testing.assert_allclose(shares, 1.0, atol=0.1 * coarse)
    assert np.mean(distances) < 0.025 * coarse and max(distances) < 0.05 * coarse


@pytest.mark.parametrize(("name", "target", "width"), [CASES[1], CASES[3]])
def test_draws_follow_the_policy_inside_the_band(models, few_networks, name, target, width):
    """Chi-square over all networks inside; the rare ones count as one."""
    model, rng, draws = models[name], np.random.default_rng(0), 20_000
    band, whole = Band(model, target, width), Exhaustive(model, few_networks, target, width)
    policy = _policy(model.space, rng, 5.0)
    policy[2] = np.eye(len(policy[2]))[0]
    drawn = band.sample(policy, rng, draws)
    assert drawn.dtype == np.int32 and drawn.shape == (draws, len(policy))
    assert band.contains(drawn).all()
    counts = np.array([len(row) for row in policy])
    numbers = np.bincount(np.ravel_multi_index(drawn.T, counts), minlength=len(few_networks))[whole.inside]
    expected = draws * whole.chances(policy) / whole.chances(policy).sum()
    rare = expected < 5
    pairs = [*zip(numbers[~rare], expected[~rare], strict=True), (numbers[rare].sum(), expected[rare].sum())]
    assert numbers.sum() == draws and len(pairs) > 50
    surprise = sum((seen - wanted) ** 2 / wanted for seen, wanted in pairs if wanted)
    freedom = len(pairs) - 1
    assert abs(surprise - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize(("name", "target", "width"), CASES)
def test_the_likeliest_is_that_of_all_networks(models, few_networks, name, target, width):
    model, rng = models[name], np.random.default_rng(1)
    band, whole = Band(model, target, width), Exhaustive(model, few_networks, target, width)
    inner = Exhaustive(model, few_networks, target, width * 0.75)
    same, tables = 0, 20
    for _ in range(tables):
        scores = [rng.normal(0, 3, len(node.choices)) for _, node in model.space.decisions]
        scores[4][0] = -np.inf
        found = band.likeliest(scores)
        assert band.contains(found[None])[0] and found[4] != 0
        score = sum(row[option] for row, option in zip(scores, found, strict=True))
        best = whole.of(scores).sum(axis=1).max()
        # What lies on the edge may be lost to the rounding of costs, what lies further in may not.
        assert inner.of(scores).sum(axis=1).max() - 1e-9 <= score <= best + 1e-9
        same += score >= best - 1e-9
    assert same >= 0.9 * tables


def test_a_policy_without_a_network_inside_has_no_likeliest_and_no_draw(models, few_networks):
    model = models["madds"]
    costs = model.predict(few_networks)
    band = Band(model, float(costs.max()), 0.01)
    smallest = [np.eye(len(node.choices))[0] for _, node in model.space.decisions]
    assert band.share(smallest) == 0
    with np.errstate(divide="ignore"):
        assert band.likeliest([np.log(row) for row in smallest]) is None
    with pytest.raises(
        InputError, match=r"^only 0 networks with a cost within 1.0% of [\d.e+]+ madds were found"
    ):
        band.sample(smallest, np.random.default_rng(0), 1)


@pytest.mark.parametrize("name", ["madds", "fitted"])
@pytest.mark.parametrize("side", [0.9, 1.1])
def test_a_target_beyond_all_networks_is_an_error_with_what_there_is(models, few_networks, name, side):
    model = models[name]
    costs = model.predict(few_networks)
    lowest, highest = costs.min(), costs.max()
    if side < 1 and lowest <= 0:
        # No target is below 0.
        lowest = -lowest
        model = dataclasses.replace(model, intercept=model.intercept + 2 * lowest)
        highest += 2 * lowest
    target = float(side * (lowest if side < 1 else highest))
    with pytest.raises(InputError) as error:
        Band(model, target, 0.05)
    message = str(error.value)
    assert "\n" not in message and message.endswith("change the target") and f"{target:,.6g}" in message
    assert re.search(rf"cost {re.escape(f'{lowest:,.6g}')} to {re.escape(f'{highest:,.6g}')}", message)
    # On the very edge there is a network.
    reach = float(lowest if side < 1 else highest)
    assert Band(model, reach, 0.001).sample(proposals.even(model.space), np.random.default_rng(0), 1).shape[0]


@pytest.fixture(scope="module")
def whole_space():
    return latency.madds_model(get_space("ibn_fused_tucker"), (320, 320), 90)


def test_a_whole_space_has_the_share_that_draws_have(whole_space):
    """A space too large to go through, against 200,000 draws without a band."""
    rng, even = np.random.default_rng(0), proposals.even(whole_space.space)
    networks = np.stack([rng.choice(len(row), 200_000, p=row) for row in even], axis=1)
    costs = whole_space.predict(networks)
    target = float(np.median(costs))
    band = Band(whole_space, target, 0.03)
    inside = networks[band.contains(networks)]
    assert len(inside) > 2000
    assert band.share(even) == pytest.approx(len(inside) / len(networks), rel=0.08)
    drawn = band.sample(even, rng, 5000)
    assert len(np.unique(drawn, axis=0)) > 4950
    for index, row in enumerate(band.marginals(even)):
        for some in (inside, drawn):
            seen = np.bincount(some[:, index], minlength=len(row)) / len(some)
            np.testing.assert_allclose(seen, row, atol=0.05)


def test_a_narrow_band_far_from_the_middle_is_no_harder(whole_space):
    even = proposals.even(whole_space.space)
    # Of even draws about one in 100,000 costs as much.
    for target in (3e8, 4e9):
        band = Band(whole_space, target, 0.001)
        drawn = band.sample(even, np.random.default_rng(0), 20)
        assert (np.abs(whole_space.predict(drawn) / target - 1) <= 0.001).all()
        found = band.likeliest([np.log(row) for row in even])
        assert band.contains(found[None])[0]
