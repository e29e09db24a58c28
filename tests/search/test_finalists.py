"""Successive halving on a shared step whose judged quality is planted."""

import functools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.errors import InputError
from mobiledets_tf.search.finalists import STATE, Finalist, Halving, certainty, rungs
from mobiledets_tf.search.search_report import model_error
from mobiledets_tf.search.selection import Selection

BATCHES = 8
# Held-out batches: those that steer are even numbers, those that judge are odd.
STEER, JUDGE = list(range(0, 2 * BATCHES, 2)), list(range(1, 2 * BATCHES, 2))


@pytest.mark.parametrize("finalists", range(1, 20))
def test_rungs_halve_to_two(finalists):
    counts = rungs(finalists)
    assert counts[0] == finalists and counts[-1] == min(2, finalists)
    assert all(after == math.ceil(before / 2) for before, after in zip(counts, counts[1:], strict=False))


def test_rungs_by_hand():
    assert (rungs(8), rungs(5), rungs(1)) == ([8, 4, 2], [5, 3, 2], [1])


def test_certainty_is_the_share_of_resamplings():
    def of(*judged):
        return Finalist((0,), "population", judged=judged)

    # Gains 1 and -1 with equal weight: of a pair of draws a quarter is (1, 1).
    assert certainty(of(1.0, 0.0), of(0.0, 1.0)) == pytest.approx(0.25, abs=0.03)
    assert certainty(of(2.0, 3.0, 4.0), of(1.0, 2.0, 3.0)) == 1.0
    assert certainty(of(1.0, 2.0, 3.0), of(2.0, 3.0, 4.0)) == 0.0
    nan = math.nan
    assert certainty(of(2.0, nan, 3.0, 0.0), of(1.0, 5.0, 2.0, nan)) == 1.0
    assert certainty(of(2.0, nan), of(1.0, 5.0)) is None
    assert certainty(of(2.0), of(1.0)) is None and certainty(of(), of()) is None
    rng = np.random.default_rng(0)
    base = rng.normal(0, 3, 64)
    better = base + rng.normal(0.1, 0.2, 64)
    assert 0.95 < certainty(of(*better), of(*base)) <= 1 and certainty(of(*base), of(*better)) < 0.05


def test_a_finalist_has_the_mean_of_its_batches():
    assert Finalist((0,), "argmax", judged=(1.0, math.nan, 3.0)).score == 2.0
    assert Finalist((0,), "argmax", judged=(1.0, -math.inf)).score == -math.inf
    assert Finalist((0,), "argmax").score == -math.inf == Finalist((0,), "best", judged=(math.nan,)).score
    sources = ("published cpu", "candidate mine", "population", "policy", "argmax", "drawn", "best", "random")
    assert [Finalist((0,), source).is_known for source in sources] == [True] * 2 + [False] * 6


class Shared:
    """Looks like a `SharedStep`: a network's one weight counts its training steps in a bank of all.

    The quality is what is planted for the network plus what its steps make of it; NaN in batches that are
    holes. `steered` has other qualities of networks, on the steering batches.
    """

    def __init__(self, planted, holes=(), steered=None):
        self.planted, self.holes, self.steered = planted, list(holes), steered or {}
        self.trained, self.rates, self.batches, self.fail_after = [], [], [], None
        self.bank = tf.Variable(np.full((len(planted), 1), 0.5, np.float32))
        self.slot = tf.Variable(np.ones((len(planted), 1), np.float32))
        self.supernet = SimpleNamespace(
            banks=[SimpleNamespace(rows=self.bank)], assign=self._assign, detector_weights=self._weights
        )
        self.optimizer = SimpleNamespace(slots=[self.slot])
        self.replicas = SimpleNamespace(local=range(1), is_chief=True)
        self.strategy = SimpleNamespace(num_replicas_in_sync=1)

    def steps_of(self, network):
        return float(self.bank[network[0], 0]) - 0.5

    def _weights(self, network):
        return {"stem_conv/kernel": self.bank.numpy()[network[0]]}

    def _assign(self, network, weights):
        rows = self.bank.numpy()
        rows[network[0]] = weights["stem_conv/kernel"]
        self.bank.assign(rows)

    def train(self, batches, networks, rate):
        number = int(networks[0][0])
        if not self.trained or self.trained[-1][0] != number or self.slot.numpy().max() == 0:
            # A training begins from the shared weights, without momentum of another network's.
            others = np.delete(self.bank.numpy(), number)
            assert (others == 0.5).all() and (self.slot.numpy() == 0).all()
            self.trained.append([number, 0])
        self.slot.assign(tf.ones_like(self.slot))
        self.bank.scatter_nd_add([[number, 0]], [1.0])
        self.trained[-1][1] += 1
        self.rates.append(rate)
        self.batches.append(batches[0])
        return [{"total_loss": 1.0, "applied": 1.0}]

    def measure(self, batches, networks, metric):
        assert metric == "loss" and batches in (STEER, JUDGE) and len(networks) == 1
        if self.fail_after is not None and len(self.trained) > self.fail_after:
            raise KeyboardInterrupt
        start, gain = self.planted[networks[0][0]]
        noise = np.random.default_rng(networks[0][0]).normal(0, 1e-3, len(batches))
        values = start + gain * self.steps_of(networks[0]) + noise
        if batches == STEER and networks[0][0] in self.steered:
            values = self.steered[networks[0][0]] + noise
        values[self.holes] = np.nan
        return values[None]


class Stream:
    """Batches are their numbers; counts how often records are read."""

    def __init__(self):
        self.read = []

    def recorded(self, first, steps, replica, replicas):
        assert (replica, replicas) == (0, 1)
        self.read.append((first, steps))
        return lambda: iter(range(first, first + steps))


def _finalists(planted, known=()):
    return [
        Finalist((number, 0), "published edgetpu" if number in known else "population")
        for number in range(len(planted))
    ]


def _halving(shared, folder, stream=None, steps=40, after=lambda: None, start=None):
    def shared_weights(finalist):
        return shared.supernet.detector_weights(finalist.decisions)

    begin = start or shared_weights
    return Halving(shared, stream or Stream(), STEER, JUDGE, "loss", 0.4, steps, begin, folder, after)


def _compare(halving, finalists):
    return halving.halve(halving.first_rung(finalists))


def _to_train(halving, finalists):
    """The trainings of a whole comparison that are not done yet, without known networks."""
    return halving.to_train(finalists) + sum(rungs(len(finalists))[1:])


# Start and gain of a step; at the end 3 is best, then 5; 0 looks best at first.
PLANTED = [(9.0, 0.0), (0.0, 0.1), (5.0, 0.0), (7.0, 1.0), (6.0, 0.0), (8.0, 0.5), (1.0, 0.0), (2.0, 0.0)]


def test_the_better_half_is_trained_further_and_the_best_wins(tmp_path):
    shared, stream, calls = Shared(PLANTED), Stream(), []
    finalists = _finalists(PLANTED)
    halving = _halving(shared, tmp_path, stream, after=lambda: calls.append(len(shared.trained)))
    assert _to_train(halving, finalists) == 14
    ranked = _compare(halving, finalists)
    assert [f.decisions[0] for f in ranked][:4] == [3, 5, 0, 4]
    assert sorted(f.decisions[0] for f in ranked) == list(range(8))
    assert [f.steps for f in ranked] == [120, 120, 80, 80, 40, 40, 40, 40]
    assert shared.trained == [[n, 40] for n in (*range(8), 3, 5, 0, 4, 3, 5)]
    assert calls == list(range(1, 15)) and _to_train(halving, _finalists(PLANTED)) == 6
    scores = [f.score for f in ranked]
    assert scores[0] == pytest.approx(7 + 120, abs=0.01) and scores[1] == pytest.approx(8 + 60, abs=0.01)
    assert len(ranked[0].judged) == BATCHES and not any(map(math.isnan, ranked[0].judged))
    assert certainty(ranked[0], ranked[1]) == 1.0
    # All networks of a rung see the same images, which are read once; every rung sees others.
    assert stream.read == [(0, 40), (40, 40), (80, 40)]
    assert shared.batches == [*list(range(40)) * 8, *list(range(40, 80)) * 4, *list(range(80, 120)) * 2]
    # The rate rises over 30 steps, and falls over the last 10 of each training.
    assert shared.rates[:40] == shared.rates[40:80]
    assert shared.rates[0] == pytest.approx(0.4 / 30) and shared.rates[14] == pytest.approx(0.2)
    assert shared.rates[29] == shared.rates[30] == 0.4
    assert shared.rates[35] == pytest.approx(0.2) and shared.rates[39] == pytest.approx(0.04)
    # The shared weights are what they were; each network's own can be had.
    assert (shared.bank.numpy() == 0.5).all() and (shared.slot.numpy() == 0).all()
    for finalist in ranked:
        assert float(halving.weights(finalist)["stem_conv/kernel"][0]) == 0.5 + finalist.steps


def test_every_network_begins_from_its_start(tmp_path):
    shared, asked = Shared(PLANTED), []

    def start(finalist):
        asked.append(finalist.decisions[0])
        return {"stem_conv/kernel": np.array([0.5 + 1000 * finalist.decisions[0]], np.float32)}

    ranked = _compare(_halving(shared, tmp_path, start=start), _finalists(PLANTED)[:3])
    assert asked == [0, 1, 2]
    for finalist in ranked:
        weight = float(_halving(shared, tmp_path, start=start).weights(finalist)["stem_conv/kernel"][0])
        assert weight == 0.5 + 1000 * finalist.decisions[0] + finalist.steps


def test_what_was_compared_before_is_not_trained_again(tmp_path):
    shared, stream = Shared(PLANTED), Stream()
    halving = _halving(shared, tmp_path, stream)
    ranked = halving.first_rung([_finalists(PLANTED)[n] for n in (4, 3, 1)])
    assert [f.decisions[0] for f in ranked] == [3, 4, 1] and {f.steps for f in ranked} == {40}
    assert (shared.bank.numpy() == 0.5).all() and _to_train(halving, _finalists(PLANTED)) == 11
    again = _halving(shared, tmp_path, stream)
    assert _to_train(again, _finalists(PLANTED)) == 11
    found = _compare(again, _finalists(PLANTED))
    alone = _compare(_halving(Shared(PLANTED), tmp_path / "alone"), _finalists(PLANTED))
    assert [(f.decisions, f.judged) for f in found] == [(f.decisions, f.judged) for f in alone]
    assert len(shared.trained) == 14


def test_the_steering_images_rank_the_first_rung_and_only_that(tmp_path):
    # On the steering images 2 and 1 are best; 1 is not on those that judge, where its steps help it little.
    shared = Shared(PLANTED, steered={2: 300.0, 1: 200.0, 3: 100.0})
    ranked = _compare(_halving(shared, tmp_path), _finalists(PLANTED)[:6])
    assert [f.decisions[0] for f in ranked] == [3, 1, 2, 5, 0, 4]
    assert [f.steps for f in ranked] == [120, 120, 80, 40, 40, 40]
    assert [f.promise for f in ranked[:3]] == pytest.approx([100, 200, 300], abs=0.01)
    assert [f.score for f in ranked[:3]] == pytest.approx([7 + 120, 12, 5], abs=0.01)
    state = json.loads((tmp_path / STATE).read_text())
    assert [len(state[f"{steps} [2, 0]"]["steered"]) for steps in (40, 80)] == [BATCHES, 0]
    # Of two networks, the judging images decide.
    two = _compare(_halving(Shared(PLANTED, steered={2: 300.0}), tmp_path / "two"), _finalists(PLANTED)[2:4])
    assert [f.decisions[0] for f in two] == [3, 2]


def test_the_best_known_network_is_there_to_the_last(tmp_path):
    shared = Shared(PLANTED)
    # 6 and 7 are the worst but one; 7 is the better of the two.
    ranked = _compare(_halving(shared, tmp_path), _finalists(PLANTED, known=(6, 7)))
    found = {f.decisions[0]: f for f in ranked}
    assert ranked[0] is found[3]
    # Five in the second rung, four in the third: three of its better half and the known one.
    assert found[7].steps == found[3].steps == 120 and found[6].steps == 40
    assert certainty(found[3], found[7]) == 1.0


def test_those_of_the_last_rung_come_by_their_score(tmp_path):
    shared = Shared(PLANTED)
    ranked = _compare(_halving(shared, tmp_path), _finalists(PLANTED, known=(6,)))
    last = [f.score for f in ranked if f.steps == ranked[0].steps]
    assert len(last) > 2 and last == sorted(last, reverse=True)


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_are_trained_once(tmp_path, count):
    shared = Shared(PLANTED)
    ranked = _compare(_halving(shared, tmp_path), _finalists(PLANTED)[2 : 2 + count])
    assert [f.decisions[0] for f in ranked] == [3, 2][-count:]
    assert shared.trained == [[n, 40] for n in (2, 3)[:count]]


class Stop(Exception):
    pass


def _stop_after(trainings):
    done = iter(range(1, 100))

    def after():
        if next(done) == trainings:
            raise Stop

    return after


@pytest.mark.parametrize(("trainings", "holes"), [(1, []), (8, []), (11, []), (8, [1])])
def test_stopped_it_goes_on_without_training_twice(tmp_path, trainings, holes):
    whole, broken = Shared(PLANTED, holes), Shared(PLANTED, holes)
    expected = _compare(_halving(whole, tmp_path / "whole"), _finalists(PLANTED))
    with pytest.raises(Stop):
        _compare(_halving(broken, tmp_path / "broken", after=_stop_after(trainings)), _finalists(PLANTED))
    assert len(broken.trained) == trainings
    again = Shared(PLANTED, holes)
    found = _compare(_halving(again, tmp_path / "broken"), _finalists(PLANTED))
    assert broken.trained + again.trained == whole.trained
    assert [f.decisions for f in found] == [f.decisions for f in expected]
    np.testing.assert_array_equal([f.judged for f in found], [f.judged for f in expected])
    assert (tmp_path / "broken" / STATE).read_bytes() == (tmp_path / "whole" / STATE).read_bytes()
    json.loads((tmp_path / "whole" / STATE).read_text(), parse_constant=functools.partial(pytest.fail))
    # Done once more it trains nothing.
    idle = Shared(PLANTED)
    _compare(_halving(idle, tmp_path / "broken"), _finalists(PLANTED))
    assert idle.trained == [] and (idle.bank.numpy() == 0.5).all()


def test_killed_between_weights_and_state_it_trains_nothing_twice(tmp_path):
    shared = Shared(PLANTED)
    shared.fail_after = 9
    with pytest.raises(KeyboardInterrupt):
        _compare(_halving(shared, tmp_path), _finalists(PLANTED))
    again = _halving(Shared(PLANTED), tmp_path)
    ranked = _compare(again, _finalists(PLANTED))
    for finalist in ranked:
        assert float(again.weights(finalist)["stem_conv/kernel"][0]) == 0.5 + finalist.steps


def test_a_checkpoint_that_a_kill_left_in_parts_is_written_again(tmp_path):
    shared, finalists = Shared(PLANTED), _finalists(PLANTED)
    halving = _halving(shared, tmp_path)
    # TensorFlow names a checkpoint in a file of its own, after its data.
    halving._path(finalists[0]).mkdir(parents=True)
    (halving._path(finalists[0]) / "ckpt-1.data-00000-of-00001").write_bytes(b"x")
    ranked = _compare(halving, finalists)
    assert [f.decisions[0] for f in ranked][:2] == [3, 5]
    assert sum(steps for number, steps in shared.trained if number == 0) == 80


@pytest.mark.parametrize("damaged", ['{"40 [0, 0]": [1.0]}', '{"40 [0, 0]": {"judged": [1.0]}}', "[]", "{"])
def test_a_damaged_state_ends_in_one_line(tmp_path, damaged):
    (tmp_path / STATE).write_text(damaged)
    with pytest.raises(InputError, match=f"state of the finalists.*{STATE}"):
        _halving(Shared(PLANTED), tmp_path)


def test_a_network_whose_loss_is_not_finite_is_last(tmp_path):
    shared = Shared([(1.0, 0.0), (math.inf, -1.0), (2.0, 0.0)])
    planted = shared.measure
    shared.measure = lambda *args: np.where(np.isinf(planted(*args)), -np.inf, planted(*args))
    for _ in range(2):
        ranked = _compare(_halving(shared, tmp_path), _finalists(shared.planted))
        assert [f.decisions[0] for f in ranked] == [2, 0, 1] and ranked[-1].score == -math.inf


def test_a_finalist_that_was_not_trained_has_the_shared_weights(tmp_path):
    shared = Shared(PLANTED)
    weights = _halving(shared, tmp_path).weights(Finalist((4, 0), "population"))
    assert {name: value.tolist() for name, value in weights.items()} == {"stem_conv/kernel": [0.5]}


class Timed:
    """Enough of a run of a search to choose its finalists; device times are 1.5 of those predicted."""

    def __init__(self, finalists, kind, extraction="target"):
        self.search = SimpleNamespace(finalists=finalists, extraction=extraction)
        self.objective = SimpleNamespace(
            device="chip",
            target=1.0,
            band=0.1,
            latency=SimpleNamespace(kind=kind, predict_one=lambda decisions: decisions[0] / 100),
        )
        self.populations, self.timed = {}, []
        self._times = lambda *_: None
        for name in ("_shortlist", "_is_timed", "_is_inside"):
            setattr(self, name, functools.partial(getattr(Selection, name), self))

    def _time(self, objective, networks):
        self.timed += [network.decisions[0] for network in networks]
        for network in networks if objective.latency.kind != "exact" else ():
            network.measured = 1.5 * network.decisions[0] / 100


def test_finalists_are_chosen_by_measured_cost():
    known = [Finalist((100,), "published cpu")]
    others = [Finalist((cost,), "population") for cost in (99, 64, 101, 66, 98, 70)]
    run = Timed(3, "simulated")
    chosen = run._shortlist(run.objective, list(known), list(others))
    # By the model 64, 66 and 70 are too fast; on the device they, and not the others, meet the target.
    assert [f.decisions[0] for f in chosen] == [100, 64, 66, 70]
    assert run.timed == [f.decisions[0] for f in run.populations["chip"]] == [100, 99, 64, 101, 66, 98, 70]
    for kind, extraction in (("exact", "target"), ("simulated", "argmax")):
        run = Timed(3, kind, extraction)
        chosen = run._shortlist(run.objective, list(known), list(others))
        assert [f.decisions[0] for f in chosen] == [100, 99, 64, 101] == run.timed


def test_a_report_says_how_far_the_model_was_off():
    rows = [{"cost": cost, "measured": measured} for cost, measured in ((1.1, 1.0), (1.8, 2.0), (3.3, 3.0))]
    error = model_error([*rows, {"cost": 5.0}, {"cost": 5.0, "measured": None, "failed": "did not answer"}])
    assert error["n"] == 3 and error["spearman"] == 1.0 and error["band"] == [1.0, 3.0]
    assert error["mean_abs_pct_error"] == pytest.approx(10) == error["worst_abs_pct_error"]
    assert error["mean_pct_error"] == pytest.approx(10 / 3, abs=1e-5)
    assert error["r2"] == pytest.approx(1 - (0.01 + 0.04 + 0.09) / 2, abs=1e-6)
    assert model_error(rows[:1]) is None and model_error([]) is None
