"""`mobiledets-train`: trains and evaluates a detector with the Object Detection API."""

import sys
from contextlib import nullcontext
from pathlib import Path

from absl import flags

import object_detection_configs
from mobiledets_tf import architecture, distribution
from mobiledets_tf.cli import app
from mobiledets_tf.errors import InputError

FLAGS = flags.FlagValues()

MODES = ("train", "eval", "train_and_eval")
_ROW = "step {step}  AP {AP:.4f}  AP50 {AP50:.4f}  AP75 {AP75:.4f}  loss {loss:.4f}"

flags.DEFINE_string(
    "architecture", None, "Published network (cpu, edgetpu, dsp, gpu) or an architecture file (.json).",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "train_data", None, "Converted data folder, or a pattern of TFRecord files.", flag_values=FLAGS
)
flags.DEFINE_string(
    "eval_data", None, "The same for evaluation; default: the folder of --train_data.", flag_values=FLAGS
)
flags.DEFINE_string(
    "pipeline_config", None,
    "Pipeline config of the Object Detection API to start from, a file or the name of a shipped one; "
    "default: one is generated.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "model_dir", None, "Folder of the training; goes on from its last checkpoint.", flag_values=FLAGS
)
flags.DEFINE_enum("mode", "train_and_eval", MODES, "What to do.", flag_values=FLAGS)
# None leaves what the config says; the number is the one of a generated config.
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
flags.DEFINE_integer("seed", 0, "Of weights, shuffling and augmentation.", flag_values=FLAGS)
flags.DEFINE_enum(
    "distribution_strategy", "one_device", distribution.STRATEGIES, "Of tf.distribute.", flag_values=FLAGS
)
flags.DEFINE_string("tpu", None, "Address of the TPU for --distribution_strategy=tpu.", flag_values=FLAGS)
flags.DEFINE_string(
    "worker_hosts", None, "host:port,host:port of all workers; default: TF_CONFIG.", flag_values=FLAGS
)
flags.DEFINE_integer("task_index", -1, "Number of this worker among --worker_hosts.", flag_values=FLAGS)
flags.mark_flag_as_required("model_dir", flag_values=FLAGS)

DESCRIPTION = """
Trains a detector with the TF Object Detection API and evaluates its checkpoints (COCO metrics).

  mobiledets-train --architecture=edgetpu --train_data=data/records --model_dir=runs/edgetpu
  mobiledets-train --pipeline_config=ssdlite_mobiledet_sample_160x160.config \\
    --train_data=data/records --model_dir=runs/sample
  mobiledets-train --model_dir=runs/sample --mode=eval
"""


def main() -> None:
    """Trains, evaluates, or both."""
    _check_flags()
    # From here on TensorFlow is needed, and the flags are known to be sensible.
    from mobiledets_tf.detection import evaluate, jobs, model_dir, train

    if FLAGS.mode == "eval":
        config = jobs.eval_config(FLAGS.model_dir, FLAGS.eval_data)
    else:
        config, label_map = jobs.train_config(_job())
        model_dir.start(FLAGS.model_dir, config, label_map, FLAGS.seed)
        with _strategy_scope():
            step = train.train(FLAGS.model_dir, FLAGS.seed)
        print(f"trained to step {step}: {FLAGS.model_dir}")
        config = None
    if FLAGS.mode != "train":
        for metrics in evaluate.evaluate_kept(FLAGS.model_dir, config):
            print(_ROW.format(**metrics))


def _check_flags() -> None:
    """Finds what can be found in a second, before TensorFlow is imported."""
    if FLAGS.architecture is not None:
        architecture.load(FLAGS.architecture)
    if FLAGS.image_size is not None:
        architecture.image_hw(FLAGS.image_size)
    for name, low in (("steps", 1), ("batch_size", 1), ("num_classes", 1), ("seed", 0)):
        if FLAGS[name].value is not None and FLAGS[name].value < low:
            raise InputError(f"--{name}={FLAGS[name].value}: allowed are {low} and more")
    for name in ("learning_rate", "depth_multiplier"):
        if FLAGS[name].value is not None and not 0 < FLAGS[name].value <= 100:
            raise InputError(f"--{name}={FLAGS[name].value}: allowed are numbers above 0, at most 100")
    if FLAGS.pipeline_config is not None:
        object_detection_configs.find(FLAGS.pipeline_config)
    distribution.check_flags(FLAGS.distribution_strategy, FLAGS.tpu, FLAGS.worker_hosts, FLAGS.task_index)
    started = (Path(FLAGS.model_dir) / "pipeline.config").exists()
    if FLAGS.mode == "eval" and not started:
        raise InputError(f"--model_dir={FLAGS.model_dir} holds no training to evaluate")
    if not started and FLAGS.architecture is None and FLAGS.pipeline_config is None:
        raise InputError("--architecture or --pipeline_config is needed to start a training")


def _job():
    from mobiledets_tf.detection import jobs, pipeline_config

    side, config = FLAGS.image_size, FLAGS.pipeline_config
    return jobs.Job(
        model_dir=FLAGS.model_dir,
        pipeline_config=config and object_detection_configs.find(config),
        train_data=FLAGS.train_data,
        eval_data=FLAGS.eval_data,
        needs_eval=FLAGS.mode != "train",
        overrides=pipeline_config.Overrides(
            architecture=FLAGS.architecture,
            num_classes=FLAGS.num_classes,
            image_size=None if side is None else (side, side),
            depth_multiplier=FLAGS.depth_multiplier,
            batch_size=FLAGS.batch_size,
            steps=FLAGS.steps,
            learning_rate=FLAGS.learning_rate,
            random_flip=FLAGS.random_flip,
            random_crop=FLAGS.random_crop,
        ),
    )


def _strategy_scope():
    """The scope of a tf.distribute strategy; TensorFlow's own default on one device."""
    if FLAGS.distribution_strategy == "one_device":
        return nullcontext()
    return distribution.get_strategy(
        FLAGS.distribution_strategy, FLAGS.tpu, FLAGS.worker_hosts, FLAGS.task_index
    ).scope()


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
