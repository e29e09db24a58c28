"""Flags of the commands that start from existing weights, and functions that interpret them."""

import os

from absl import flags

from mobiledets_tf.errors import InputError

INIT_FROM = (
    "Weights to start from: a folder or checkpoint of this project, a TF1 checkpoint, a .tflite file, or "
    "zoo:cpu, zoo:edgetpu, zoo:dsp (downloaded); those of another architecture are remapped."
)


def define_cache(flag_values: flags.FlagValues) -> None:
    """Defines `--weights_cache`."""
    flags.DEFINE_string(
        "weights_cache",
        None,
        "Folder of downloaded weights ($MOBILEDETS_CACHE, or ~/.cache/mobiledets).",
        flag_values=flag_values,
    )


def check(flag: str, path: str) -> None:
    """Raises InputError if a path does not exist or names published weights that are not in the zoo."""
    from mobiledets_tf.weights import zoo

    if zoo.is_name(path):
        zoo.check_name(path)
    elif "://" not in path and not os.path.exists(path) and not os.path.exists(f"{path}.index"):
        raise InputError(f"--{flag}={path} does not exist")


def local(path: str, cache: str | None) -> str:
    """Returns a local path of weights; published weights, which `path` may name, are downloaded.

    Args:
      path: path of the weights, or `zoo:NAME`.
      cache: folder of downloaded weights; None for the default folder.
    """
    from mobiledets_tf.weights import zoo

    return zoo.checkpoint(path, zoo.cache_folder(cache)) if zoo.is_name(path) else path
