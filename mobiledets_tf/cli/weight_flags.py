"""Flags of commands that start from weights, and how they are read."""

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
        "weights_cache", None, "Folder of downloaded weights ($MOBILEDETS_CACHE, or ~/.cache/mobiledets).",
        flag_values=flag_values,
    )  # fmt: skip


def check(flag: str, path: str) -> None:
    """Raises InputError where no weights are at a path, or the zoo has none of that name."""
    from mobiledets_tf.weights import zoo

    if zoo.is_name(path):
        zoo.check_name(path)
    elif "://" not in path and not os.path.exists(path) and not os.path.exists(f"{path}.index"):
        raise InputError(f"--{flag}={path} does not exist")


def local(path: str, cache: str | None) -> str:
    """The path of weights, downloaded where it names published ones."""
    from mobiledets_tf.weights import zoo

    return zoo.checkpoint(path, zoo.cache_folder(cache)) if zoo.is_name(path) else path
