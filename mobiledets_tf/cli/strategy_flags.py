"""Flags for tf.distribute, which all commands that train have in common."""

from absl import flags

from mobiledets_tf import distribution


def define(flag_values: flags.FlagValues) -> None:
    """Adds the flags for tf.distribute to a command's flags."""
    flags.DEFINE_enum(
        "distribution_strategy",
        "one_device",
        distribution.STRATEGIES,
        "Of tf.distribute.",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "tpu", None, "Address of the TPU for --distribution_strategy=tpu.", flag_values=flag_values
    )
    flags.DEFINE_string(
        "worker_hosts",
        None,
        "host:port,host:port of all workers; default: TF_CONFIG.",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "task_index", -1, "Number of this worker among --worker_hosts.", flag_values=flag_values
    )
