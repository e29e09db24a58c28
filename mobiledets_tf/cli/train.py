"""`mobiledets-train`: trains and evaluates a detector with the Object Detection API."""

import sys
from pathlib import Path

from absl import flags

import object_detection_configs
from mobiledets_tf import architecture
from mobiledets_tf.cli import app, strategy_flags, weight_flags
from mobiledets_tf.errors import InputError

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
    _check_flags()
    # TensorFlow is loaded from here on, after the flags have been checked.
    if FLAGS.mode == "eval":
        _evaluate()
    else:
        _train()


def _evaluate() -> None:
    from mobiledets_tf.detection import evaluate, training_config

    config = training_config.eval_config(FLAGS.model_dir, FLAGS.eval_data)
    evaluations = evaluate.evaluate_kept(FLAGS.model_dir, config)
    for evaluation in evaluations:
        print(_ROW.format(**evaluation.metrics))
    print("\n".join(evaluations[-1].table()))


def _train() -> None:
    from mobiledets_tf.detection import training_run

    strategy = strategy_flags.strategy(FLAGS)
    options = training_run.Options(FLAGS.seed, FLAGS.mode == "train_and_eval", FLAGS.early_stop, FLAGS.cache)
    result = training_run.run(_job(), options, strategy, None if FLAGS.init_from is None else _initial_path)
    print(f"trained to step {result.step}: {FLAGS.model_dir}")
    for row in result.metrics:
        print(_ROW.format(**row))
    if result.table:
        print("\n".join(result.table))
    if result.best is not None:
        print(f"best by AP: {result.best}")


def _initial_path() -> str:
    return weight_flags.local(FLAGS.init_from, FLAGS.weights_cache)


def _check_flags() -> None:
    """Makes the checks that take at most a second, before TensorFlow is imported."""
    if FLAGS.architecture is not None:
        architecture.load(FLAGS.architecture)
    if FLAGS.image_size is not None:
        architecture.image_hw(FLAGS.image_size)
    for name, low in (
        ("steps", 1),
        ("batch_size", 1),
        ("num_classes", 1),
        ("seed", 0),
        ("early_stop", 1),
        ("max_damaged_records", 0),
    ):
        if FLAGS[name].value is not None and FLAGS[name].value < low:
            raise InputError(f"--{name}={FLAGS[name].value}: allowed are {low} and more")
    for name in ("learning_rate", "depth_multiplier"):
        if FLAGS[name].value is not None and not 0 < FLAGS[name].value <= 100:
            raise InputError(f"--{name}={FLAGS[name].value}: allowed are numbers above 0, at most 100")
    if FLAGS.pipeline_config is not None:
        object_detection_configs.find(FLAGS.pipeline_config)
    if FLAGS.init_from is not None:
        weight_flags.check("init_from", FLAGS.init_from)
    if FLAGS.early_stop is not None and FLAGS.mode != "train_and_eval":
        raise InputError(f"--early_stop needs --mode=train_and_eval; given --mode={FLAGS.mode}")
    if FLAGS.quantization_aware and FLAGS.mixed_precision:
        raise InputError("--quantization_aware goes without --mixed_precision: rounding is of float32 values")
    strategy_flags.check(FLAGS)
    started = (Path(FLAGS.model_dir) / "pipeline.config").exists()
    if FLAGS.mode == "eval" and not started:
        raise InputError(f"--model_dir={FLAGS.model_dir} holds no training to evaluate")
    for flag, given in (
        ("--preset=finetune", FLAGS.preset == "finetune"),
        ("--quantization_aware", FLAGS.quantization_aware),
    ):
        if given and FLAGS.init_from is None and not started:
            raise InputError(f"{flag} needs --init_from: it starts from trained weights")
    named = FLAGS.architecture or FLAGS.pipeline_config or _initial_folder() or _zoo_network()
    if not started and not named:
        raise InputError("--architecture or --pipeline_config is needed to start a training")


def _initial_folder() -> Path | None:
    """Returns the folder of --init_from if it states the network of the weights, otherwise None."""
    if FLAGS.init_from is None:
        return None
    from mobiledets_tf.weights import trained_folder

    folder = trained_folder.folder_of(FLAGS.init_from)
    return folder if trained_folder.names_network(folder) else None


def _zoo_network() -> str | None:
    """Returns the name of the network if --init_from names published weights, otherwise None."""
    from mobiledets_tf.weights import zoo

    named = FLAGS.init_from is not None and zoo.is_name(FLAGS.init_from)
    return zoo.check_name(FLAGS.init_from) if named else None


def _network() -> dict:
    """Returns the overrides of the network's settings: from the flags or, by default, from --init_from."""
    side = FLAGS.image_size
    given = {
        "architecture": FLAGS.architecture,
        "image_size": None if side is None else (side, side),
        "depth_multiplier": FLAGS.depth_multiplier,
    }
    folder = _initial_folder()
    started = (Path(FLAGS.model_dir) / "pipeline.config").exists()
    if FLAGS.architecture or FLAGS.pipeline_config or started:
        return given
    if folder is None:
        return given | {"architecture": _zoo_network()}
    from mobiledets_tf.weights import trained_folder

    settings = trained_folder.settings(folder)
    found = {
        "architecture": str(folder / trained_folder.ARCHITECTURE),
        "image_size": tuple(settings["image_size"]),
        "depth_multiplier": settings["depth_multiplier"],
    }
    return {name: found[name] if value is None else value for name, value in given.items()}


def _job():
    from mobiledets_tf.detection import pipeline_config, training_config

    config = FLAGS.pipeline_config
    return training_config.Job(
        model_dir=FLAGS.model_dir,
        pipeline_config=config and object_detection_configs.find(config),
        train_data=FLAGS.train_data,
        eval_data=FLAGS.eval_data,
        needs_eval=FLAGS.mode != "train",
        preset=FLAGS.preset,
        max_damaged_records=FLAGS.max_damaged_records,
        overrides=pipeline_config.Overrides(
            **_network(),
            num_classes=FLAGS.num_classes,
            batch_size=FLAGS.batch_size,
            steps=FLAGS.steps,
            learning_rate=FLAGS.learning_rate,
            random_flip=FLAGS.random_flip,
            random_crop=FLAGS.random_crop,
            random_color=FLAGS.random_color,
            random_scale=FLAGS.random_scale,
            quantization_aware=FLAGS.quantization_aware,
            mixed_precision=FLAGS.mixed_precision,
        ),
    )


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
