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
    "train_data", None, "Converted data folder, or a pattern of TFRecord files.", flag_values=FLAGS
)
flags.DEFINE_string(
    "eval_data", None, "The same for evaluation; default: the folder of --train_data.", flag_values=FLAGS
)
flags.DEFINE_string(
    "pipeline_config",
    None,
    "Pipeline config of the Object Detection API to start from, a file or the name of a shipped one; "
    "default: one is generated.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "model_dir", None, "Folder of the training; goes on from its last checkpoint.", flag_values=FLAGS
)
flags.DEFINE_string("init_from", None, weight_flags.INIT_FROM, flag_values=FLAGS)
weight_flags.define_cache(FLAGS)
flags.DEFINE_enum(
    "preset",
    None,
    ["finetune", "small"],
    "Steps, batch, rate and augmentation by the size of the data: finetune with --init_from, small from "
    "scratch. Other flags go before it.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "quantization_aware",
    None,
    "Trains with simulated int8 quantisation; needs --init_from.",
    flag_values=FLAGS,
)
flags.DEFINE_enum("mode", "train_and_eval", MODES, "What to do.", flag_values=FLAGS)
# None keeps the value of the config; the help text gives the value of a generated config in brackets.
flags.DEFINE_integer("steps", None, "Training steps (2000).", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", None, "Images a step (16).", flag_values=FLAGS)
flags.DEFINE_integer("num_classes", None, "Classes of the head (those of the label map).", flag_values=FLAGS)
flags.DEFINE_float("learning_rate", None, "Base learning rate (0.2).", flag_values=FLAGS)
flags.DEFINE_integer("image_size", None, "Side of the square input, in pixels (320).", flag_values=FLAGS)
flags.DEFINE_float("depth_multiplier", None, "Scales all widths (1).", flag_values=FLAGS)
flags.DEFINE_bool(
    "random_flip", None, "Mirror at random (off); wrong for digits, letters, signs.", flag_values=FLAGS
)
flags.DEFINE_bool("random_crop", None, "SSD random crop (off); for long trainings.", flag_values=FLAGS)
flags.DEFINE_bool("random_color", None, "Brightness, contrast, hue, saturation (off).", flag_values=FLAGS)
flags.DEFINE_bool(
    "random_scale",
    None,
    "Smaller objects: images on a canvas of up to twice their size (off).",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "early_stop", None, "Ends after so many evaluations in a row without a better AP.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "max_damaged_records", 0, "So many damaged TFRecords are skipped; more are an error.", flag_values=FLAGS
)
flags.DEFINE_bool("cache", False, "Keeps decoded training images in memory.", flag_values=FLAGS)
flags.DEFINE_bool(
    "mixed_precision",
    None,
    "The network computes in bfloat16 (for GPUs and TPUs that can).",
    flag_values=FLAGS,
)
flags.DEFINE_integer("seed", 0, "Of weights, shuffling and augmentation.", flag_values=FLAGS)
strategy_flags.define(FLAGS)
flags.mark_flag_as_required("model_dir", flag_values=FLAGS)

DESCRIPTION = """
Trains a detector with the TF Object Detection API and evaluates its checkpoints (COCO metrics).

  mobiledets-train --architecture=edgetpu --train_data=data/records --model_dir=runs/edgetpu
  mobiledets-train --pipeline_config=ssdlite_mobiledet_sample_160x160.config \\
    --train_data=data/records --model_dir=runs/sample
  mobiledets-train --init_from=model.ckpt-400000 --architecture=edgetpu --preset=finetune \\
    --train_data=data/records --model_dir=runs/mine
  mobiledets-train --init_from=zoo:edgetpu --preset=finetune --train_data=data/records --model_dir=runs/mine
  mobiledets-train --init_from=runs/mine --quantization_aware --train_data=data/records --model_dir=runs/qat
  mobiledets-train --model_dir=runs/sample --mode=eval

Stopped, killed or finished, the same command goes on from the last checkpoint.
"""


def main() -> None:
    """Trains a detector, evaluates its checkpoints, or both."""
    from mobiledets_tf.detection.options import TrainOptions

    options = app.options(FLAGS, TrainOptions, evaluate=FLAGS.mode == "train_and_eval")
    if FLAGS.mode == "eval" and not options.started:
        raise InputError(f"--model_dir={FLAGS.model_dir} holds no training to evaluate")
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
        print(f"best by AP: {result.best}")


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
