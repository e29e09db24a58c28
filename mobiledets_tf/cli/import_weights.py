"""`mobiledets-import`: published or older weights into a checkpoint that train and export read."""

import json
import os
import sys

from absl import flags

from mobiledets_tf import architecture
from mobiledets_tf.cli import app
from mobiledets_tf.errors import InputError

FLAGS = flags.FlagValues()

flags.DEFINE_string(
    "weights", None, "TF1 checkpoint (prefix, one of its files, or folder), or a .tflite file.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "architecture", None,
    "Published network (cpu, edgetpu, dsp, gpu) or an architecture file; default: what the weights are of.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string("output_dir", None, "Folder to write; new or empty.", flag_values=FLAGS)
flags.DEFINE_integer(
    "num_classes", None, "Classes of the wanted head (those of the weights).", lower_bound=1,
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "image_size", None, "Side of the square input, in pixels (320, or that of the .tflite file).",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_float("depth_multiplier", 1.0, "Of all widths, as the weights have it.", flag_values=FLAGS)
flags.DEFINE_enum("format", "text", ["text", "json"], "Of the account that is printed.", flag_values=FLAGS)
flags.mark_flag_as_required("weights", flag_values=FLAGS)
flags.mark_flag_as_required("output_dir", flag_values=FLAGS)

DESCRIPTION = """
Brings weights in: a MobileDet checkpoint of the TF1 Object Detection API, or a .tflite detector.
Writes a checkpoint, its network and import.json, the account of every tensor.

  mobiledets-import --weights=model.ckpt-400000 --output_dir=imported
  mobiledets-import --weights=detect.tflite --architecture=edgetpu --output_dir=imported
  mobiledets-export --checkpoint_dir=imported --output_dir=out
"""


def main() -> None:
    """Imports, writes the folder, prints what was taken."""
    _check_flags()
    # From here on TensorFlow is needed.
    from mobiledets_tf.data import folders
    from mobiledets_tf.detection import imported
    from tflite_export import foreign_weights

    account = foreign_weights.read(
        FLAGS.weights,
        architecture.load(FLAGS.architecture) if FLAGS.architecture else None,
        FLAGS.num_classes,
        None if FLAGS.image_size is None else architecture.image_hw(FLAGS.image_size),
        FLAGS.depth_multiplier,
    )
    with folders.new_folder(FLAGS.output_dir) as staging:
        imported.write(account, staging)
    if FLAGS.format == "json":
        print(json.dumps(account.to_dict(), indent=1))
        return
    print("\n".join(account.summary()))
    print(f"{FLAGS.output_dir}: {account.target.architecture.name}, {account.target.num_classes} classes")


def _check_flags() -> None:
    if FLAGS.architecture is not None:
        architecture.load(FLAGS.architecture)
    if FLAGS.image_size is not None:
        architecture.image_hw(FLAGS.image_size)
    if not 0 < FLAGS.depth_multiplier <= 100:
        raise InputError(f"--depth_multiplier={FLAGS.depth_multiplier}: allowed are above 0, at most 100")
    if FLAGS.weights.endswith(".tflite") and not os.path.isfile(FLAGS.weights):
        raise InputError(f"--weights={FLAGS.weights} does not exist")


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
