"""The replicas of a tf.distribute strategy, and the exchange of values between its workers."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mobiledets_tf.compat import tf
from mobiledets_tf.errors import CheckFailed, InputError


class Replicas:
    """All replicas of a strategy, seen from one worker.

    Args:
      strategy: the tf.distribute strategy.

    Attributes:
      strategy: the tf.distribute strategy.
      local: range of the indices of this worker's replicas among all replicas.
      is_chief: whether this worker is the one that writes files.
      alone: whether there is no other worker.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        count = strategy.num_replicas_in_sync
        # TensorFlow's default strategy does not list its devices.
        mine = 1 if count == 1 else len(strategy.extended.worker_devices)
        resolver = strategy.cluster_resolver
        task = (resolver.task_id if resolver is not None else None) or 0
        self.local = range(task * mine, (task + 1) * mine)
        self.is_chief = task == 0
        self.alone = count == mine

    def check_batch(self, batch_size: int) -> None:
        """Raises InputError unless the batch can be split equally among all replicas."""
        count = self.strategy.num_replicas_in_sync
        if batch_size % count:
            raise InputError(
                f"batch_size is {batch_size} for {count} replicas; allowed: multiples of {count}"
            )

    def spread(self, values: Sequence) -> Any:
        """Returns host values, one for each local replica, as tf.distribute per-replica values."""
        if len(values) == 1:
            return values[0]
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: values[context.replica_id_in_sync_group - self.local.start]
        )

    def share(self, values: Sequence[float | np.ndarray] | np.ndarray) -> np.ndarray:
        """Exchanges the values of the local replicas for those of all replicas.

        Every worker has to call this method.

        Args:
          values: one number or array for each local replica; all have the same shape.

        Returns:
          float64 [replicas, ...].
        """
        mine = np.array(values, np.float64)
        if self.alone:
            return mine
        places = np.zeros((len(mine), self.strategy.num_replicas_in_sync, *mine.shape[1:]))
        places[np.arange(len(mine)), list(self.local)] = mine
        summed = self._sum(self.spread([tf.constant(row, tf.float64) for row in places]))
        return self.strategy.experimental_local_results(summed)[0].numpy()

    def from_chief(self, values: Sequence[float]) -> np.ndarray:
        """Returns the chief's values on every worker, as float64 [values].

        Every worker has to call this method, with the same number of values.
        """
        # Replica 0 is always the first replica of the chief.
        return self.share([np.array(values, np.float64)] * len(self.local))[0]

    def any_worker(self, value: bool) -> bool:
        """Returns whether `value` is true on any worker. Every worker has to call this method."""
        return value if self.alone else bool(self.share([float(value)] * len(self.local)).any())

    @tf.function(autograph=False)
    def _sum(self, values: Any) -> Any:
        def total(value: tf.Tensor) -> tf.Tensor:
            # tf.identity creates an operation inside the replica, which has a device; the argument has none.
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

        return self.strategy.run(total, args=(values,))


@contextlib.contextmanager
def lost_workers() -> Iterator[None]:
    """Replaces TensorFlow's error about an aborted collective operation with a one-line message.

    Raises:
      CheckFailed: another worker has stopped.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if "Collective ops is aborted" not in str(error):
            raise
        raise CheckFailed(
            "another worker has stopped, for a reason that its own output names; "
            "start all workers again to resume from the last saved state"
        ) from error
