"""Who has which replica, without processes: strategies are described by what is asked of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from mobiledets_tf.errors import InputError
from mobiledets_tf.replicas import Replicas


def strategy(replicas: int, local: int, task: int | None):
    resolver = None if task is None else SimpleNamespace(task_id=task)
    extended = SimpleNamespace(worker_devices=[f"CPU:{index}" for index in range(local)])
    return SimpleNamespace(num_replicas_in_sync=replicas, extended=extended, cluster_resolver=resolver)


@pytest.mark.parametrize(
    ("given", "local", "chief", "alone"),
    [
        (strategy(1, 0, None), [0], True, True),
        (strategy(2, 2, None), [0, 1], True, True),
        (strategy(4, 2, 0), [0, 1], True, False),
        (strategy(4, 2, 1), [2, 3], False, False),
        (strategy(1, 1, 0), [0], True, True),
    ],
)
def test_each_worker_has_its_own_replicas(given, local, chief, alone):
    replicas = Replicas(given)
    assert (list(replicas.local), replicas.is_chief, replicas.alone) == (local, chief, alone)


def test_alone_nothing_has_to_be_asked():
    replicas = Replicas(strategy(2, 2, None))
    assert replicas.share([1, 2]).tolist() == [1.0, 2.0]
    assert replicas.any_worker(True) is True and replicas.any_worker(False) is False


def test_alone_every_value_is_the_own_one():
    """A value of a replica may be an array, as the qualities of a network on several batches."""
    replicas = Replicas(strategy(2, 2, None))
    values = np.array([[0.1, np.nan, -np.inf], [1.0, 2.0, 3.0]])
    shared = replicas.share(list(values))
    np.testing.assert_array_equal(shared, values)
    assert shared.dtype == np.float64
    np.testing.assert_array_equal(replicas.from_chief([1, np.nan]), [1.0, np.nan])
    assert replicas.from_chief([]).shape == (0,)


@pytest.mark.parametrize("task", [0, 1])
def test_each_worker_puts_its_values_at_its_places_and_takes_the_chiefs(task, monkeypatch):
    """Two workers of two replicas each: what is summed over all workers has zeros at the others' places."""
    replicas = Replicas(strategy(4, 2, task))
    monkeypatch.setattr(Replicas, "spread", lambda self, values: values)
    monkeypatch.setattr(Replicas, "_sum", lambda self, values: sum(values))
    replicas.strategy.experimental_local_results = lambda value: [value, value]
    mine = np.arange(6.0).reshape(2, 3) + 1
    expected = np.zeros((4, 3))
    expected[2 * task : 2 * task + 2] = mine
    np.testing.assert_array_equal(replicas.share(list(mine)), expected)
    assert replicas.share([7, 8]).tolist() == ([7, 8, 0, 0] if task == 0 else [0, 0, 7, 8])
    # The other worker's values are none of what the chief says.
    assert replicas.from_chief([5.0, 6.0]).tolist() == ([5, 6] if task == 0 else [0, 0])


def test_a_batch_is_shared_out_evenly_or_not_at_all():
    Replicas(strategy(4, 2, 0)).check_batch(8)
    with pytest.raises(InputError, match="batch_size is 6 for 4 replicas; allowed: multiples of 4"):
        Replicas(strategy(4, 2, 0)).check_batch(6)
