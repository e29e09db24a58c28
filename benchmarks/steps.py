"""Training steps, their input and their memory, built as the commands build them, for benchmarks to time."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def sample(folder: Path, num_train: int, image_size: int, num_val: int = 8) -> str:
    """Draws and converts a sample set in a folder, unless it is there; returns the folder of the records."""
    from mobiledets_tf import api

    images, records = folder / "images", folder / "records"
    if not images.exists():
        counts = {"num_train": num_train, "num_val": num_val}
        api.draw_sample(api.SampleOptions(output_dir=str(images), image_size=image_size, **counts))
    if not records.exists():
        api.convert_data(api.ConvertOptions(images=str(images), output_dir=str(records)))
    return str(records)


def config(data: str, **overrides):
    """Returns the pipeline config of a training on converted data.

    Args:
      data: the converted folder.
      **overrides: fields of `pipeline_config.Overrides`, `architecture` among them.
    """
    from mobiledets_tf.detection import pipeline_config, training_config

    # Nothing is written to the folder.
    job = training_config.Job(
        model_dir="", train_data=data, needs_eval=False, overrides=pipeline_config.Overrides(**overrides)
    )
    return training_config.train_config(job)[0]


def model(config):
    """Builds the detection model of a config, quantisation-aware or in bfloat16 if the config asks for it."""
    from mobiledets_tf.compat import keras
    from mobiledets_tf.detection import meta_architecture, pipeline_config

    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if config.train_config.use_bfloat16 else before)
    try:
        return meta_architecture.build_detection_model(
            config.model, True, quantization_aware=pipeline_config.is_quantization_aware(config)
        )
    finally:
        keras.mixed_precision.set_global_policy(before)


def batches(config, model) -> Iterator:
    """Returns an iterator over the batches (features, labels) of a training."""
    from mobiledets_tf import compat
    from mobiledets_tf.detection.ordered_input import Records, training_order

    compat.enable_object_detection()
    from object_detection import inputs

    records = Records(list(config.train_input_reader.tf_record_input_reader.input_path))
    with training_order(records, seed=0, start=0):
        return iter(inputs.train_input(config.train_config, config.train_input_reader, config.model, model))


def training_step(model, config) -> Callable[[Any, Any], Any]:
    """Returns a traced function of features and labels that makes a training step and returns the loss."""
    from mobiledets_tf import compat
    from mobiledets_tf.compat import tf

    compat.enable_object_detection()
    from object_detection import model_lib_v2
    from object_detection.builders import optimizer_builder

    count = tf.Variable(0, dtype=tf.int64, trainable=False)
    optimizer, _ = optimizer_builder.build(config.train_config.optimizer, global_step=count)

    @tf.function
    def step(features, labels):
        losses = model_lib_v2.eager_train_step(
            model,
            features,
            labels,
            config.train_config.unpad_groundtruth_tensors,
            optimizer,
            training_step=count,
            add_regularization_loss=True,
            clip_gradients_value=config.train_config.gradient_clipping_by_norm or None,
            num_replicas=1,
        )
        return losses["Loss/total_loss"]

    return step


def noise(images: int, image_size: int, num_classes: int):
    """Returns a batch of a search: images of noise with one box each."""
    from mobiledets_tf.compat import tf
    from mobiledets_tf.search.input_pipeline import MAX_BOXES, Batch, Labels

    pixels = tf.random.stateless_uniform([images, image_size, image_size, 3], [0, 1], -1.0, 1.0)
    one = tf.one_hot([0], MAX_BOXES)
    boxes = tf.constant([[[0.2, 0.2, 0.6, 0.7]]]) * tf.reshape(one, [1, MAX_BOXES, 1])
    labels = {
        Labels.num_groundtruth_boxes: tf.ones([images], tf.int32),
        Labels.groundtruth_boxes: tf.repeat(boxes, images, axis=0),
        Labels.groundtruth_classes: tf.repeat(tf.one_hot([[3] * MAX_BOXES], num_classes), images, axis=0),
        Labels.groundtruth_weights: tf.repeat(one, images, axis=0),
    }
    return Batch(pixels, labels, tf.constant([str(i) for i in range(images)]))


def peak_memory_mib() -> float:
    """Returns the peak of this process's resident memory, in MiB."""
    # resource.getrusage is not used: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
