"""`mobiledets-train`: trains and evaluates a detector with the Object Detection API."""

import sys
from typing import TYPE_CHECKING

from absl import flags

from mobiledets_tf.cli import app, strategy_flags, weight_flags
from mobiledets_tf.errors import InputError

if TYPE_CHECKING:
    from mobiledets_tf.detection.options import TrainOptions

FLAGS = flags.FlagValues()

MODES = ("train", "eval", "train_and_eval")
_ROW = "step {step}  AP {AP:.4f}  AP50 {AP50:.4f}  AP75 {AP75:.4f}  loss {loss:.4f}"

flags.DEFINE_string(
    "architecture",
    None,
    "Published network (cpu, edgetpu, dsp, gpu) or an architecture file (.json).",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "train_data",
    None,
    "Folder written by mobiledets-data --mode=convert, or a TFRecord pattern.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "eval_data",
    None,
    "Evaluation data, given like --train_data; default: the folder of --train_data.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "pipeline_config",
    None,
    "Pipeline config of the Object Detection API to start from: a file or the name of a shipped "
    "config; default: a config is generated.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "model_dir",
    None,
    "Folder of the training run; a run in it is resumed from its last checkpoint.",
    flag_values=FLAGS,
)
flags.DEFINE_string("init_from", None, weight_flags.INIT_FROM, flag_values=FLAGS)
weight_flags.define_cache(FLAGS)
flags.DEFINE_enum(
    "preset",
    None,
    ["finetune", "small"],
    "Choose steps, batch size, learning rate and augmentation by the size of the data set, for "
    "fine-tuning (finetune; requires --init_from) or training from scratch (small). Explicit flags "
    "override the preset.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "quantization_aware",
    None,
    "Simulate int8 rounding during training; requires --init_from.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "mode",
    "train_and_eval",
    MODES,
    "Whether to train, to evaluate the checkpoints of --model_dir, or both.",
    flag_values=FLAGS,
)
# None keeps the value of the pipeline config; the help text gives that of a generated config in brackets.
flags.DEFINE_integer("steps", None, "Training steps (2000).", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", None, "Images per step (16).", flag_values=FLAGS)
flags.DEFINE_integer(
    "num_classes",
    None,
    "Number of classes without the background (that of the label map).",
    flag_values=FLAGS,
)
flags.DEFINE_float("learning_rate", None, "Base learning rate (0.2).", flag_values=FLAGS)
flags.DEFINE_integer("image_size", None, "Side of the square input, in pixels (320).", flag_values=FLAGS)
flags.DEFINE_float("depth_multiplier", None, "Factor for all widths (1).", flag_values=FLAGS)
flags.DEFINE_bool(
    "random_flip",
    None,
    "Flip images horizontally at random (off); unsuitable for digits, letters and signs.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "random_crop", None, "Apply SSD's random crop (off); useful for long training runs.", flag_values=FLAGS
)
flags.DEFINE_bool(
    "random_color", None, "Vary brightness, contrast, hue and saturation at random (off).", flag_values=FLAGS
)
flags.DEFINE_bool(
    "random_scale",
    None,
    "Place images on a canvas of up to twice their size, which makes objects smaller (off).",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "early_stop",
    None,
    "Stop after this many consecutive evaluations without a better AP; default: never.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "max_damaged_records", 0, "Number of damaged TFRecords to skip before failing.", flag_values=FLAGS
)
flags.DEFINE_bool("cache", False, "Keep decoded training images in memory.", flag_values=FLAGS)
flags.DEFINE_bool(
    "mixed_precision",
    None,
    "Compute in bfloat16 (needs a GPU or TPU that supports it).",
    flag_values=FLAGS,
)
flags.DEFINE_integer("seed", 0, "Random seed for weights, shuffling and augmentation.", flag_values=FLAGS)
strategy_flags.define(FLAGS)
flags.mark_flag_as_required("model_dir", flag_values=FLAGS)

DESCRIPTION = """
Trains a detector with the TF Object Detection API and evaluates its checkpoints with the COCO metrics. For
flags without a default, the value of a generated config is given in brackets.

  mobiledets-train --architecture=edgetpu --train_data=data/records --model_dir=runs/edgetpu
  mobiledets-train --pipeline_config=ssdlite_mobiledet_sample_160x160.config \\
    --train_data=data/records --model_dir=runs/sample
  mobiledets-train --init_from=model.ckpt-400000 --architecture=edgetpu --preset=finetune \\
    --train_data=data/records --model_dir=runs/mine
  mobiledets-train --init_from=zoo:edgetpu --preset=finetune --train_data=data/records --model_dir=runs/mine
  mobiledets-train --init_from=runs/mine --quantization_aware --train_data=data/records --model_dir=runs/qat
  mobiledets-train --model_dir=runs/sample --mode=eval

To resume a training run from its last checkpoint, run the same command again.
"""


def main() -> None:
    """Trains a detector, evaluates its checkpoints, or both."""
    from mobiledets_tf.detection.options import TrainOptions

    options = app.options(FLAGS, TrainOptions, evaluate=FLAGS.mode == "train_and_eval")
    if FLAGS.mode == "eval" and not options.started:
        raise InputError(f"--model_dir={FLAGS.model_dir} contains no training run to evaluate")
    options.check()
    # TensorFlow is loaded from here on, after the flags have been checked.
    if FLAGS.mode == "eval":
        _evaluate()
    else:
        _train(options)


def _evaluate() -> None:
    from mobiledets_tf import api

    evaluations = api.evaluate(FLAGS.model_dir, FLAGS.eval_data)
    for evaluation in evaluations:
        print(_ROW.format(**evaluation.metrics))
    print("\n".join(evaluations[-1].table()))


def _train(options: "TrainOptions") -> None:
    from mobiledets_tf import api

    result = api.train(options)
    print(f"trained to step {result.step}: {FLAGS.model_dir}")
    for row in result.metrics:
        print(_ROW.format(**row))
    if result.table:
        print("\n".join(result.table))
    if result.best is not None:
        print(f"best checkpoint by AP: {result.best}")


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
