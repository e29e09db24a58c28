"""Augmentation by flags, with the Object Detection API's own steps."""

from collections.abc import Sequence

import numpy as np

from mobiledets_tf import compat
from mobiledets_tf.compat import tf
from mobiledets_tf.detection.drawing import draw_boxes

compat.enable_object_detection()

from object_detection import inputs  # noqa: E402
from object_detection.builders import preprocessor_builder  # noqa: E402
from object_detection.core import preprocessor  # noqa: E402
from object_detection.core import standard_fields as fields  # noqa: E402
from object_detection.protos import preprocessor_pb2  # noqa: E402

Keys = fields.InputDataFields
# Flag -> the API's step, in the order of the SSD paper (arXiv 1512.02325): colour, then smaller
# objects on a larger canvas, then a crop. The input is resized to a fixed square afterwards, so that
# the API's `random_image_scale` alone would change nothing.
STEPS = {
    "flip": "random_horizontal_flip",
    "color": "random_distort_color",
    "scale": "random_pad_image",
    "crop": "ssd_random_crop",
}


def step(name: str) -> preprocessor_pb2.PreprocessingStep:
    """The config of a step of `STEPS`, with the API's own settings."""
    made = preprocessor_pb2.PreprocessingStep()
    getattr(made, STEPS[name]).SetInParent()
    return made


def samples(
    images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], names: Sequence[str], side: int, seed: int = 0
) -> list[np.ndarray]:  # fmt: skip
    """Images after the steps with the boxes drawn that are left.

    Args:
      images: uint8 [height, width, 3].
      boxes: float32 [boxes, 4] for each, (ymin, xmin, ymax, xmax) in parts of the image.
      names: of `STEPS`.
      side: of the results, in pixels.
      seed: of the draws.

    Returns:
      uint8 [side, side, 3] for each image.
    """
    tf.random.set_seed(seed)
    options = [preprocessor_builder.build(step(name)) for name in STEPS if name in names]
    return [_sample(image, each, options, side) for image, each in zip(images, boxes, strict=True)]


def _sample(image: np.ndarray, boxes: np.ndarray, options: list, side: int) -> np.ndarray:
    tensors = {
        Keys.image: tf.constant(image, tf.float32),
        Keys.groundtruth_boxes: tf.reshape(tf.constant(boxes, tf.float32), (-1, 4)),
        Keys.groundtruth_classes: tf.ones([len(boxes)], tf.float32),
        Keys.groundtruth_weights: tf.ones([len(boxes)], tf.float32),
    }
    # As a graph, which is what the API's steps are written for.
    with compat.quiet():
        tensors = tf.function(lambda given: inputs.augment_input_data(dict(given), options))(tensors)
    pixels = preprocessor.resize_image(tensors[Keys.image], new_height=side, new_width=side)[0].numpy()
    return draw_boxes(pixels * (2 / 255) - 1, tensors[Keys.groundtruth_boxes].numpy(), ())


def drawn_batch(features: dict, labels: dict, count: int) -> np.ndarray:
    """The first images of a training batch with their boxes; those of weight 0 (crowds) in red.

    Returns:
      uint8 [images, height, width, 3].
    """
    images = features[Keys.image].numpy()[:count]
    boxes, weights = labels[Keys.groundtruth_boxes].numpy(), labels[Keys.groundtruth_weights].numpy()
    return np.stack([
        draw_boxes(image, boxes[row][weights[row] > 0], boxes[row][weights[row] <= 0])
        for row, image in enumerate(images)
    ])  # fmt: skip
