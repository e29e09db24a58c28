"""Creates tf.distribute strategies by name with Model Garden's utilities."""

import dataclasses
from typing import TYPE_CHECKING, Any

from mobiledets_tf.errors import InputError
from mobiledets_tf.options import Options, option

if TYPE_CHECKING:
    import tensorflow as tf

STRATEGIES = ("one_device", "mirrored", "multi_worker_mirrored", "tpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StrategyOptions(Options):
    """Options of tf.distribute, shared by everything that trains.

    Attributes:
      distribution_strategy: one of `STRATEGIES`.
      tpu: address of the TPU.
      worker_hosts: `host:port,host:port` of all workers; None uses TF_CONFIG if it is set.
      task_index: index of this worker among `worker_hosts`.
    """

    distribution_strategy: str = option("one_device", choices=STRATEGIES)
    tpu: str | None = None
    worker_hosts: str | None = None
    task_index: int = -1

    def check_strategy(self) -> None:
        """Raises InputError if the four are inconsistent or incomplete; does not load TensorFlow."""
        check_flags(self.distribution_strategy, self.tpu, self.worker_hosts, self.task_index)

    def strategy(self) -> "tf.distribute.Strategy":
        """Returns the tf.distribute strategy."""
        return get_strategy(self.distribution_strategy, self.tpu, self.worker_hosts, self.task_index)


def check_flags(name: str, tpu: str | None, worker_hosts: str | None, task_index: int) -> None:
    """Checks the strategy flags as far as possible without TensorFlow.

    Args:
      name: one of `STRATEGIES`.
      tpu: address of the TPU, or None.
      worker_hosts: `host:port,host:port` of all workers, or None.
      task_index: index of this worker among `worker_hosts`.

    Raises:
      InputError: a flag that the strategy needs is missing or out of range.
    """
    if name == "tpu" and not tpu:
        raise InputError("--distribution_strategy=tpu requires --tpu, the address of the TPU")
    hosts = worker_hosts.split(",") if worker_hosts else []
    if hosts and name != "multi_worker_mirrored":
        raise InputError(
            f"--worker_hosts requires --distribution_strategy=multi_worker_mirrored; given: {name}"
        )
    if hosts and not 0 <= task_index < len(hosts):
        raise InputError(f"--task_index={task_index}; allowed: 0 to {len(hosts) - 1}, one for each host")


def get_strategy(
    name: str, tpu: str | None = None, worker_hosts: str | None = None, task_index: int = -1
) -> Any:
    """Returns a strategy; for `one_device` it is TensorFlow's default strategy.

    Args:
      name: one of `STRATEGIES`.
      tpu: address of the TPU.
      worker_hosts: `host:port,host:port` of all workers; None uses TF_CONFIG if it is set.
      task_index: index of this worker among `worker_hosts`.
    """
    from official.common import distribute_utils

    from mobiledets_tf.compat import tf

    if name == "one_device":
        return tf.distribute.get_strategy()
    if worker_hosts:
        distribute_utils.configure_cluster(worker_hosts, task_index)
    gpus = len(tf.config.list_physical_devices("GPU"))
    return distribute_utils.get_distribution_strategy(name, num_gpus=gpus, tpu_address=tpu)
