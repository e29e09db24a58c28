"""Augmentation: selected by flags, applied by the Object Detection API's preprocessing steps."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from mobiledets_tf import compat
from mobiledets_tf.compat import tf
from mobiledets_tf.detection import random_numbers
from mobiledets_tf.detection.drawing import draw_boxes

compat.enable_object_detection()

from object_detection import inputs  # noqa: E402
from object_detection.builders import preprocessor_builder  # noqa: E402
from object_detection.core import preprocessor  # noqa: E402
from object_detection.core import standard_fields as fields  # noqa: E402
from object_detection.protos import preprocessor_pb2  # noqa: E402

Keys = fields.InputDataFields
# Maps each flag to a step of the API, in the order of the SSD paper (arXiv 1512.02325): colour, then
# smaller objects on a larger canvas, then a crop. Because the input is resized to a fixed square
# afterwards, the API's `random_image_scale` alone would have no effect.
STEPS = {
    "flip": "random_horizontal_flip",
    "color": "random_distort_color",
    "scale": "random_pad_image",
    "crop": "ssd_random_crop",
}


def step(name: str) -> preprocessor_pb2.PreprocessingStep:
    """Returns the config of a step of `STEPS`, with the API's default settings."""
    made = preprocessor_pb2.PreprocessingStep()
    getattr(made, STEPS[name]).SetInParent()
    return made


def samples(
    images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], names: Sequence[str], side: int, seed: int = 0
) -> list[np.ndarray]:
    """Augments images and draws the remaining boxes on them.

    Args:
      images: uint8 arrays [height, width, 3].
      boxes: for each image, float32 [boxes, 4]: (ymin, xmin, ymax, xmax) as fractions of the image.
      names: the keys of `STEPS` to apply.
      side: side of the returned square images, in pixels.
      seed: seed of the random augmentation.

    Returns:
      One uint8 array [side, side, 3] per image.
    """
    options = [preprocessor_builder.build(step(name)) for name in STEPS if name in names]

    def augmented(tensors: dict, place: tf.Tensor) -> dict:
        with random_numbers.stateless(seed, place):
            return inputs.augment_input_data(dict(tensors), options)

    return [
        _sample(functools.partial(augmented, place=tf.constant(place, tf.int64)), image, each, side)
        for place, (image, each) in enumerate(zip(images, boxes, strict=True))
    ]


def _sample(augmented: Callable[[dict], dict], image: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    tensors = {
        Keys.image: tf.constant(image, tf.float32),
        Keys.groundtruth_boxes: tf.reshape(tf.constant(boxes, tf.float32), (-1, 4)),
        Keys.groundtruth_classes: tf.ones([len(boxes)], tf.float32),
        Keys.groundtruth_weights: tf.ones([len(boxes)], tf.float32),
    }
    # Run as a graph, because the API's steps are written for graph mode.
    with compat.quiet():
        tensors = tf.function(augmented)(tensors)
    pixels = preprocessor.resize_image(tensors[Keys.image], new_height=side, new_width=side)[0].numpy()
    return draw_boxes(pixels * (2 / 255) - 1, tensors[Keys.groundtruth_boxes].numpy(), ())


def drawn_batch(features: dict, labels: dict, count: int) -> np.ndarray:
    """Draws the boxes on the first `count` images of a training batch; boxes of weight 0 (crowds) are red.

    Returns:
      uint8 [images, height, width, 3].
    """
    images = features[Keys.image].numpy()[:count]
    boxes, weights = labels[Keys.groundtruth_boxes].numpy(), labels[Keys.groundtruth_weights].numpy()
    return np.stack(
        [
            draw_boxes(image, boxes[row][weights[row] > 0], boxes[row][weights[row] <= 0])
            for row, image in enumerate(images)
        ]
    )
