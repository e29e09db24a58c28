"""Wraps a detector as one exportable function: image, network, post-processing.

`TFLite_Detection_PostProcess` has no TensorFlow implementation. It is written as a function with
`experimental_implements`, which the converter replaces with the custom op.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mobiledets_tf.compat import keras, tf
from mobiledets_tf.models import postprocess
from tflite_export.tflite.layout import DETECTION_OUTPUTS, INPUT, RAW_OUTPUTS
from tflite_export.tflite.model_file import CUSTOM_OP
from tflite_export.tflite.suppression import Suppression


class ExportModule(tf.Module):
    """A detector for one image.

    The input is `image` [1, height, width, 3] float32 in [-1, 1]. All outputs are float32. With
    post-processing they are `boxes` [1, n, 4] (ymin, xmin, ymax, xmax; not clipped), `classes`
    [1, n] counted from 0 without the background, `scores` [1, n] and `count` [1]. Without it they are
    `raw_boxes` [1, anchors, 4] and `class_scores` [1, anchors, classes + 1] (sigmoid; slot 0 is the
    background).

    Args:
      detector: a model of `mobiledets_tf.models.build_detector`.
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax), or None for no post-processing.
      suppression: settings of the post-processing.
    """

    def __init__(self, detector: keras.Model, anchors: np.ndarray | None, suppression: Suppression):
        super().__init__(name="detector")
        # Only the weights are tracked, because saving the Keras object would trace every layer again.
        self.weights = list(detector.weights)
        self._anchors = anchors
        self._suppression = suppression
        self.detect = _function(detector, self._finish)

    def _finish(self, raw_boxes: tf.Tensor, class_logits: tf.Tensor) -> dict:
        scores = tf.sigmoid(class_logits)
        if self._anchors is None:
            return dict(zip(RAW_OUTPUTS, (raw_boxes, scores), strict=True))
        op = _custom_op(self._suppression, num_classes=scores.shape[-1] - 1)
        center_size = tf.constant(postprocess.to_center_size(self._anchors), name="anchors")
        return dict(zip(DETECTION_OUTPUTS, op(raw_boxes, scores, center_size), strict=True))


def _function(detector: keras.Model, finish: Callable) -> Any:
    shape = (1, *detector.input_shape[1:])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name=INPUT)])
    def detect(image: tf.Tensor) -> Any:
        return finish(*detector(image, training=False))

    return detect


def _custom_op(suppression: Suppression, num_classes: int) -> Any:
    """Returns the function that the converter replaces with the custom op.

    If there is one score column more than `num_classes`, the op treats the first column as the background
    and counts classes from 0 without it. The converter writes these attributes and no others.
    """
    y, x, h, w = postprocess.BOX_SCALES
    attributes = {
        "max_detections": f"i: {suppression.max_detections}",
        "max_classes_per_detection": "i: 1",
        "use_regular_nms": f"b: {str(suppression.nms == 'regular').lower()}",
        "nms_score_threshold": f"f: {suppression.score_threshold:.9g}",
        "nms_iou_threshold": f"f: {suppression.iou_threshold:.9g}",
        "y_scale": f"f: {y}",
        "x_scale": f"f: {x}",
        "h_scale": f"f: {h}",
        "w_scale": f"f: {w}",
        "num_classes": f"i: {num_classes}",
    }
    words = " ".join(f'attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items())

    @tf.function(experimental_implements=f'name: "{CUSTOM_OP}" {words}')
    def detection_postprocess(raw_boxes: tf.Tensor, class_scores: tf.Tensor, anchors: tf.Tensor) -> tuple:
        # This body never runs: the converter replaces the function and keeps only the outputs' shapes.
        del raw_boxes, class_scores, anchors
        n = suppression.max_detections
        shapes = {"boxes": (1, n, 4), "classes": (1, n), "scores": (1, n), "count": (1,)}
        return tuple(tf.zeros(shapes[name], name=name) for name in DETECTION_OUTPUTS)

    return detection_postprocess
