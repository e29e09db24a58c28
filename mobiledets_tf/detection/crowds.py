"""Crowd boxes in the loss, as COCO means them: neither objects to be found nor background.

A crowd box gets weight 0 when an example is read, before any augmentation: the API's steps carry
weights along with boxes, but not `is_crowd`. The API's matcher leaves boxes of weight 0 out; an
anchor that lies in one by half or more, and has no object, is left out of the class loss, as COCO
counts a detection there neither right nor wrong.
"""

from collections.abc import Sequence

from mobiledets_tf import compat
from mobiledets_tf.compat import tf

compat.enable_object_detection()

from object_detection.core import standard_fields as fields  # noqa: E402

_KEYS = fields.InputDataFields
# Of an anchor's area, inside a crowd.
INSIDE = 0.5


def without_weight(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A decoded example in which crowd boxes have weight 0."""
    if _KEYS.groundtruth_is_crowd not in example or _KEYS.groundtruth_weights not in example:
        return example
    crowd, weights = example[_KEYS.groundtruth_is_crowd], example[_KEYS.groundtruth_weights]
    # The key is optional: an example without it has no crowds.
    crowd = tf.cond(tf.size(crowd) > 0, lambda: crowd, lambda: tf.zeros_like(weights, tf.bool))
    return example | {_KEYS.groundtruth_weights: tf.where(crowd, tf.zeros_like(weights), weights)}


def are_inside(anchors: tf.Tensor, boxes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Which anchors lie in a crowd by half or more; bool [anchors].

    Args:
      anchors: float32 [anchors, 4], (ymin, xmin, ymax, xmax).
      boxes: float32 [boxes, 4]; those of weight 0 with an area are crowds, others without are padding.
      weights: float32 [boxes].
    """
    top = tf.maximum(anchors[:, None, :2], boxes[None, :, :2])
    bottom = tf.minimum(anchors[:, None, 2:], boxes[None, :, 2:])
    shared = tf.reduce_prod(tf.maximum(bottom - top, 0.0), axis=-1)
    area = tf.reduce_prod(anchors[:, 2:] - anchors[:, :2], axis=-1)
    is_crowd = (weights <= 0) & (tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=-1) > 0)
    return tf.reduce_any((shared >= INSIDE * area[:, None]) & is_crowd[None], axis=1)


def class_weights(
    weights: tf.Tensor, match: tf.Tensor, anchors: tf.Tensor, boxes: Sequence[tf.Tensor],
    box_weights: Sequence[tf.Tensor],
) -> tf.Tensor:  # fmt: skip
    """Weights of the class loss with 0 for unmatched anchors in crowds.

    Args:
      weights: float32 [batch, anchors, classes + 1].
      match: int32 [batch, anchors]; below 0 without an object.
      anchors: float32 [anchors, 4].
      boxes, box_weights: of each image of the batch.
    """
    inside = tf.stack([are_inside(anchors, *each) for each in zip(boxes, box_weights, strict=True)])
    return tf.where((inside & (match < 0))[..., None], tf.zeros_like(weights), weights)
