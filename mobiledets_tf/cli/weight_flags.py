"""Flags of the commands that start from existing weights."""

from absl import flags

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
