"""Flags for tf.distribute, shared by all commands that train."""

from absl import flags

from mobiledets_tf import distribution


def define(flag_values: flags.FlagValues) -> None:
    """Adds the flags for tf.distribute to a command's flags."""
    flags.DEFINE_enum(
        "distribution_strategy",
        "one_device",
        distribution.STRATEGIES,
        "Strategy of tf.distribute.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "tpu", None, "Address of the TPU for --distribution_strategy=tpu.", flag_values=flag_values
    )
    flags.DEFINE_string(
        "worker_hosts",
        None,
        "Addresses of all workers as host:port,host:port; default: those in TF_CONFIG.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "task_index", -1, "Index of this worker in --worker_hosts, starting at 0.", flag_values=flag_values
    )
