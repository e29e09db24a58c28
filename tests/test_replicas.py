"""Who has which replica, without processes: strategies are described by what is asked of them."""

from types import SimpleNamespace

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


def test_a_batch_is_shared_out_evenly_or_not_at_all():
    Replicas(strategy(4, 2, 0)).check_batch(8)
    with pytest.raises(InputError, match="batch_size is 6 for 4 replicas; allowed: multiples of 4"):
        Replicas(strategy(4, 2, 0)).check_batch(6)
