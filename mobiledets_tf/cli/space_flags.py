"""Flags of the search space, shared by the commands that draw networks from it."""

from absl import flags

from mobiledets_tf.errors import InputError
from mobiledets_tf.search_space import SPACES, SearchSpace, get_space


def define(flag_values: flags.FlagValues) -> None:
    """Adds the flags of the search space to a command's flags."""
    flags.DEFINE_enum(
        "search_space",
        "ibn_fused_tucker",
        SPACES,
        "Search space, named by the blocks that it offers.",
        flag_values=flag_values,
    )
    flags.DEFINE_list(
        "kernel_sizes",
        ["3", "5"],
        "Kernel sizes in the space: 3, 5 or 3,5; 3 alone is the DSP variant.",
        flag_values=flag_values,
    )
    flags.DEFINE_float(
        "depth_multiplier", 1.0, "Factor for all widths of the space.", flag_values=flag_values
    )


def kernel_sizes(flag_values: flags.FlagValues) -> tuple[int, ...]:
    """Returns the kernel sizes as integers; raises InputError if one is not an integer."""
    given = flag_values.kernel_sizes
    try:
        return tuple(int(size) for size in given)
    except ValueError as error:
        raise InputError(f"--kernel_sizes={','.join(given)}; allowed: 3, 5 or 3,5") from error


def space(flag_values: flags.FlagValues) -> SearchSpace:
    """Returns the search space that the flags name."""
    kernels = kernel_sizes(flag_values)
    return get_space(flag_values.search_space, kernels, flag_values.depth_multiplier)
