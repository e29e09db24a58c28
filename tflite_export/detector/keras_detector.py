"""Runs the float network of a checkpoint with the post-processing of a file."""

import dataclasses
from typing import Any

import numpy as np

from mobiledets_tf.compat import keras, tf
from mobiledets_tf.models import postprocess
from tflite_export.detector.file_detector import Detections, first
from tflite_export.tflite.suppression import Suppression


class KerasDetector:
    """The float model with the same post-processing as the file.

    Args:
      model: a model of `mobiledets_tf.models.build_detector`.
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax).
      suppression: settings of the post-processing.
    """

    def __init__(self, model: keras.Model, anchors: np.ndarray, suppression: Suppression):
        settings = dataclasses.astuple(suppression)

        @tf.function
        def run(image: np.ndarray) -> Any:
            boxes, logits = model(image, training=False)
            return postprocess.detections(boxes, logits, anchors, *settings)

        self._run = run

    def __call__(self, image: np.ndarray) -> Detections:
        return first(*(output.numpy() for output in self._run(tf.constant(image))))
