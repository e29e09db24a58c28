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


def check(flag_values: flags.FlagValues) -> None:
    """Raises InputError if the flags are inconsistent or incomplete; does not load TensorFlow."""
    distribution.check_flags(*_values(flag_values))


def strategy(flag_values: flags.FlagValues):
    """Returns the tf.distribute strategy that the flags name."""
    return distribution.get_strategy(*_values(flag_values))


def _values(flag_values: flags.FlagValues) -> tuple:
    names = ("distribution_strategy", "tpu", "worker_hosts", "task_index")
    return tuple(flag_values[name].value for name in names)
