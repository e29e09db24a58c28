"""Times training steps of `edgetpu`, plain and quantisation-aware, of Model Garden's backbone, and the input.

All networks have the same SSDLite head, losses, optimizer and batch. Their steps alternate in one process
and run the Object Detection API's `eager_train_step`. The input pipeline is timed separately, in processes
that may use one and two cores. Prints one JSON object.

  python benchmarks/train_step.py --image_size=320 --batch_size=8
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import steps
from absl import app, flags

flags.DEFINE_integer("image_size", 320, "Side of the square images, in pixels.")
flags.DEFINE_integer("batch_size", 8, "Images per step.")
flags.DEFINE_integer("steps", 15, "Number of timed steps of each network.")
flags.DEFINE_integer("batches", 60, "Number of timed batches of the input pipeline.")
flags.DEFINE_string("data", None, "Converted data folder; default: a temporary sample.")
flags.DEFINE_integer("input_of", None, "Internal: print images per second with this many cores.")
FLAGS = flags.FLAGS


def main(_):
    if FLAGS.input_of:
        # This must precede loading TensorFlow, which starts as many threads as there are cores it may use.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: FLAGS.input_of])
        print(_images_per_s())
        return
    with tempfile.TemporaryDirectory() as folder:
        if FLAGS.data is None:
            FLAGS.data = steps.sample(Path(folder), 200, FLAGS.image_size)
        print(json.dumps(_steps() | {"input_images_per_s": _input_in_own_processes()}))


def _config(**overrides):
    size = (FLAGS.image_size, FLAGS.image_size)
    return steps.config(
        FLAGS.data,
        architecture="edgetpu",
        image_size=size,
        batch_size=FLAGS.batch_size,
        random_crop=True,
        **overrides,
    )


def _garden_detector(num_classes: int):
    """Builds Model Garden's MobileDetEdgeTPU with this project's head on its C4 and C5."""
    from official.vision.modeling.backbones.mobiledet import MobileDet

    from mobiledets_tf import architecture
    from mobiledets_tf.compat import keras
    from mobiledets_tf.models import build_detector

    size = FLAGS.image_size
    shape = keras.layers.InputSpec(shape=[None, size, size, 3])
    backbone = MobileDet("MobileDetEdgeTPU", input_specs=shape, norm_momentum=0.99, norm_epsilon=0.01)
    ours = build_detector(architecture.load("edgetpu"), num_classes, size)
    # The head is everything of this project's detector after its C4 and C5.
    image = keras.Input((size, size, 3))
    ends = backbone(image)
    head = keras.Model(_endpoints(ours), ours.outputs)
    return keras.Model(image, head([ends["4"], ends["5"]]))


def _endpoints(detector) -> list:
    """Returns C4 and C5 of this project's detector, which are the inputs of its first two predictors."""
    layers = {layer.name: layer for layer in detector.layers}
    return [layers[f"predictor{index}_box_depthwise"].input for index in (0, 1)]


def _step(model, config, batch):
    """Returns a function that makes one training step."""
    step = steps.training_step(model, config)
    return lambda: float(step(*batch))


def _steps() -> dict:
    from mobiledets_tf import compat
    from mobiledets_tf.compat import keras
    from mobiledets_tf.detection import meta_architecture

    compat.enable_object_detection()
    keras.utils.set_random_seed(0)
    config, quantized_config = _config(), _config(quantization_aware=True)
    ours, quantized = steps.model(config), steps.model(quantized_config)
    garden_network = _garden_detector(config.model.ssd.num_classes)
    weights = {f"{i}/{w.name.split('/')[-1]}": w for i, w in enumerate(garden_network.weights)}
    garden = meta_architecture.build_detection_model(config.model, True, garden_network, weights)
    batch = next(steps.batches(config, ours))
    sides = {
        "ours": _step(ours, config, batch),
        "garden": _step(garden, config, batch),
        "quantization_aware": _step(quantized, quantized_config, batch),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(FLAGS.steps + 2):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if run > 1:  # The first call traces, the second warms up.
                times[name].append(time.perf_counter() - start)
    return {
        "step_ratio_to_garden_median": _ratio(times["ours"], times["garden"]),
        "quantization_aware_ratio_median": _ratio(times["quantization_aware"], times["ours"]),
        "step_s": {name: float(np.median(found)) for name, found in times.items()},
        "image_size": FLAGS.image_size,
        "batch_size": FLAGS.batch_size,
    }


def _ratio(times: list[float], others: list[float]) -> float:
    return float(np.median(np.array(times) / np.array(others)))


def _input_in_own_processes() -> dict[str, float]:
    found = {}
    for cores in (1, 2):
        names = ("image_size", "batch_size", "batches", "data")
        command = [sys.executable, __file__, f"--input_of={cores}"]
        command += [f"--{name}={getattr(FLAGS, name)}" for name in names]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        found[f"{cores}_core" + "s" * (cores > 1)] = float(run.stdout.split()[-1])
    return found


def _images_per_s() -> float:
    config = _config()
    batches = steps.batches(config, steps.model(config))
    for _ in range(5):
        next(batches)
    start = time.perf_counter()
    for _ in range(FLAGS.batches):
        next(batches)
    return FLAGS.batches * FLAGS.batch_size / (time.perf_counter() - start)


if __name__ == "__main__":
    app.run(main)
