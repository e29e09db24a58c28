"""`mobiledets-import`: converts published or older weights to a checkpoint that train and export read."""

import json
import sys

from absl import flags

from mobiledets_tf.cli import app, weight_flags

FLAGS = flags.FlagValues()

flags.DEFINE_string(
    "weights",
    None,
    "Weights to import: a TF1 checkpoint (prefix, one of its files, or its folder), a .tflite file, a"
    " folder of this project, or zoo:cpu, zoo:edgetpu, zoo:dsp (downloaded).",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "architecture",
    None,
    "Network to import into: a published one (cpu, edgetpu, dsp, gpu) or an architecture file; "
    "default: the network of the weights. Weights of another network are remapped.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "calibration_data",
    None,
    "Images for recovering batch normalisation: a folder written by mobiledets-data, or a TFRecord "
    "pattern. Without them, weights of a .tflite file can be used for inference only.",
    flag_values=FLAGS,
)
weight_flags.define_cache(FLAGS)
flags.DEFINE_string("output_dir", None, "Output folder; must be new or empty.", flag_values=FLAGS)
flags.DEFINE_integer(
    "num_classes",
    None,
    "Number of classes of the head; default: that of the weights.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "image_size",
    None,
    "Side of the square input, in pixels; default: 320, or that of the .tflite file.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "depth_multiplier", 1.0, "Factor for all widths that the weights were trained with.", flag_values=FLAGS
)
flags.DEFINE_enum("format", "text", ["text", "json"], "Format of the printed account.", flag_values=FLAGS)
flags.mark_flag_as_required("weights", flag_values=FLAGS)
flags.mark_flag_as_required("output_dir", flag_values=FLAGS)

DESCRIPTION = """
Imports a MobileDet checkpoint of the TF1 Object Detection API, or a .tflite detector. Writes a checkpoint,
its architecture, and import.json, which says what became of each tensor.

  mobiledets-import --weights=model.ckpt-400000 --output_dir=imported
  mobiledets-import --weights=detect.tflite --calibration_data=data/records --output_dir=imported
  mobiledets-import --weights=zoo:edgetpu --output_dir=published
  mobiledets-export --checkpoint_dir=imported --output_dir=out
"""


def main() -> None:
    """Imports the weights, writes the folder and prints an account of what was imported."""
    from mobiledets_tf import api
    from mobiledets_tf.weights.options import ImportOptions

    account = api.import_weights(app.options(FLAGS, ImportOptions))
    if FLAGS.format == "json":
        print(json.dumps(account.to_dict(), indent=1))
        return
    print("\n".join(account.summary()))
    print(f"{FLAGS.output_dir}: {account.target.architecture.name}, {account.target.num_classes} classes")


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
