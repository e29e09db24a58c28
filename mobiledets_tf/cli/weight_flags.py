"""Flags shared by the commands that start from existing weights."""

from absl import flags

INIT_FROM = (
    "Initial weights: a folder or checkpoint of this project, a TF1 checkpoint, a .tflite file, or zoo:cpu, "
    "zoo:edgetpu, zoo:dsp (downloaded). Weights of another architecture are remapped."
)


def define_cache(flag_values: flags.FlagValues) -> None:
    """Defines `--weights_cache`."""
    flags.DEFINE_string(
        "weights_cache",
        None,
        "Folder for downloaded weights; default: $MOBILEDETS_CACHE, or ~/.cache/mobiledets.",
        flag_values=flag_values,
    )
