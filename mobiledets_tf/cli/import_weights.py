"""`mobiledets-import`: converts published or older weights to a checkpoint that train and export read."""

import json
import sys

from absl import flags

from mobiledets_tf import architecture
from mobiledets_tf.cli import app, weight_flags
from mobiledets_tf.errors import InputError

FLAGS = flags.FlagValues()

flags.DEFINE_string(
    "weights", None, "TF1 checkpoint (prefix, one of its files, or folder), a .tflite file, a folder of this "
    "project, or zoo:cpu, zoo:edgetpu, zoo:dsp (downloaded).",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "architecture", None,
    "Published network (cpu, edgetpu, dsp, gpu) or an architecture file; default: what the weights are of. "
    "Weights of another network are remapped.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "calibration_data", None, "Images that batch normalisation is recovered over: a converted folder, or a "
    "pattern of TFRecords. Without them weights of a .tflite file are for inference only.",
    flag_values=FLAGS,
)  # fmt: skip
weight_flags.define_cache(FLAGS)
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
  mobiledets-import --weights=detect.tflite --calibration_data=data/records --output_dir=imported
  mobiledets-import --weights=zoo:edgetpu --output_dir=published
  mobiledets-export --checkpoint_dir=imported --output_dir=out
"""


def main() -> None:
    """Imports the weights, writes the folder and prints an account of what was imported."""
    _check_flags()
    # TensorFlow is needed from here on.
    from mobiledets_tf.data import folders
    from mobiledets_tf.weights import fitting, imported_weights

    account, target = _read()
    account = fitting.fit(account, target, _images(target.image_size))
    with folders.new_folder(FLAGS.output_dir) as staging:
        imported_weights.write(account, staging)
    if FLAGS.format == "json":
        print(json.dumps(account.to_dict(), indent=1))
        return
    print("\n".join(account.summary()))
    print(f"{FLAGS.output_dir}: {account.target.architecture.name}, {account.target.num_classes} classes")


def _read():
    """Returns the imported weights and the requested detector."""
    from mobiledets_tf.weights import own_checkpoint, readers

    path = weight_flags.local(FLAGS.weights, FLAGS.weights_cache)
    size = None if FLAGS.image_size is None else architecture.image_hw(FLAGS.image_size)
    if own_checkpoint.is_own(path):
        theirs = own_checkpoint.described(path, size)
        if theirs is None:
            raise InputError(f"--weights={path}: no architecture.json and settings.json beside it")
        target = _asked(theirs)
        return readers.read_for(path, target), target
    network = architecture.load(FLAGS.architecture) if FLAGS.architecture else None
    account = _read_foreign(path, network, size)
    return account, _asked(account.target)


def _read_foreign(path: str, network, size: tuple[int, int] | None):
    """Reads weights that are not of this project.

    The weights are read as those of `network`. If that fails, they are read as those of a published
    network, from which they can be remapped.

    Args:
      path: path of the weights.
      network: the requested network, or None for a published one.
      size: (height, width) in pixels, or None for the default.

    Raises:
      InputError: the weights fit neither; the message is about the requested network.
    """
    from mobiledets_tf.weights import readers

    try:
        return readers.read(path, network, FLAGS.num_classes, size, FLAGS.depth_multiplier)
    except InputError as error:
        if network is None:
            raise
        first = error
    try:
        return readers.read(path, None, None, size, FLAGS.depth_multiplier)
    except InputError:
        raise first from None


def _asked(theirs):
    """Returns the requested detector; properties that no flag sets are those of the weights."""
    import dataclasses

    network = architecture.load(FLAGS.architecture) if FLAGS.architecture else None
    asked = {
        "architecture": network,
        "num_classes": FLAGS.num_classes,
        "image_size": FLAGS.image_size and architecture.image_hw(FLAGS.image_size),
        # The widths of a searched network are final.
        "depth_multiplier": 1.0 if network and network.origin else None,
    }
    return dataclasses.replace(theirs, **{name: value for name, value in asked.items() if value})


def _images(image_size: tuple[int, int]) -> list | None:
    """Returns batches of the images of --calibration_data, or None without the flag."""
    if FLAGS.calibration_data is None:
        return None
    from mobiledets_tf.data import preprocessing, records

    return preprocessing.batches(records.resolve(FLAGS.calibration_data, "train"), image_size)


def _check_flags() -> None:
    if FLAGS.architecture is not None:
        architecture.load(FLAGS.architecture)
    if FLAGS.image_size is not None:
        architecture.image_hw(FLAGS.image_size)
    if not 0 < FLAGS.depth_multiplier <= 100:
        raise InputError(f"--depth_multiplier={FLAGS.depth_multiplier}: allowed are above 0, at most 100")
    weight_flags.check("weights", FLAGS.weights)
    if FLAGS.calibration_data is not None:
        from mobiledets_tf.data import records

        records.resolve(FLAGS.calibration_data, "train")


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
