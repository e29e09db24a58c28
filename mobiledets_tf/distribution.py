"""Creates tf.distribute strategies by name with Model Garden's utilities."""

from mobiledets_tf.errors import InputError

STRATEGIES = ("one_device", "mirrored", "multi_worker_mirrored", "tpu")


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
        raise InputError("--distribution_strategy=tpu needs --tpu, its address")
    hosts = worker_hosts.split(",") if worker_hosts else []
    if hosts and name != "multi_worker_mirrored":
        raise InputError(f"--worker_hosts is for multi_worker_mirrored; --distribution_strategy={name}")
    if hosts and not 0 <= task_index < len(hosts):
        raise InputError(f"--task_index={task_index}: allowed are 0 to {len(hosts) - 1}, one for each host")


def get_strategy(name: str, tpu: str | None = None, worker_hosts: str | None = None, task_index: int = -1):
    """Returns a strategy; for `one_device` it is TensorFlow's default strategy.

    Args:
      name: one of `STRATEGIES`.
      tpu: address of the TPU.
      worker_hosts: `host:port,host:port` of all workers; if None, TF_CONFIG is used where it is set.
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
