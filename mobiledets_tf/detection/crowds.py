"""Treats crowd boxes in the loss as COCO defines them: neither objects to detect nor background.

A crowd box gets weight 0 when an example is read, before any augmentation, because the API's
augmentation steps carry weights along with boxes but not `is_crowd`. The API's matcher ignores
boxes of weight 0. An unmatched anchor with at least half of its area in a crowd box is excluded
from the class loss, because COCO counts a detection there as neither right nor wrong.
"""

from collections.abc import Sequence

from mobiledets_tf import compat
from mobiledets_tf.compat import tf

compat.enable_object_detection()

from object_detection.core import standard_fields as fields  # noqa: E402

_KEYS = fields.InputDataFields
# Fraction of an anchor's area that has to lie in a crowd box for the anchor to count as inside it.
INSIDE = 0.5


def without_weight(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns a decoded example in which crowd boxes have weight 0."""
    if _KEYS.groundtruth_is_crowd not in example or _KEYS.groundtruth_weights not in example:
        return example
    crowd, weights = example[_KEYS.groundtruth_is_crowd], example[_KEYS.groundtruth_weights]
    # The key is optional; an example without it has no crowd boxes.
    crowd = tf.cond(tf.size(crowd) > 0, lambda: crowd, lambda: tf.zeros_like(weights, tf.bool))
    return example | {_KEYS.groundtruth_weights: tf.where(crowd, tf.zeros_like(weights), weights)}


def are_inside(anchors: tf.Tensor, boxes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns which anchors have at least half of their area in a crowd box; bool [anchors].

    Args:
      anchors: float32 [anchors, 4], (ymin, xmin, ymax, xmax).
      boxes: float32 [boxes, 4], likewise. Boxes of weight 0 are crowds if they have an area, otherwise
        padding.
      weights: float32 [boxes], the weight of each box.
    """
    is_crowd = (weights <= 0) & (tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=-1) > 0)

    def compared() -> tf.Tensor:
        top = tf.maximum(anchors[:, None, :2], boxes[None, :, :2])
        bottom = tf.minimum(anchors[:, None, 2:], boxes[None, :, 2:])
        shared = tf.reduce_prod(tf.maximum(bottom - top, 0.0), axis=-1)
        area = tf.reduce_prod(anchors[:, 2:] - anchors[:, :2], axis=-1)
        return tf.reduce_any((shared >= INSIDE * area[:, None]) & is_crowd[None], axis=1)

    # Few images have a crowd, and comparing all anchors with all boxes costs milliseconds per step.
    return tf.cond(tf.reduce_any(is_crowd), compared, lambda: tf.zeros(tf.shape(anchors)[:1], tf.bool))


def class_weights(
    weights: tf.Tensor,
    match: tf.Tensor,
    anchors: tf.Tensor,
    boxes: Sequence[tf.Tensor],
    box_weights: Sequence[tf.Tensor],
) -> tf.Tensor:
    """Sets the class loss weights of unmatched anchors in crowd boxes to 0.

    Args:
      weights: class loss weights; float32 [batch, anchors, classes + 1].
      match: index of the box matched to each anchor, negative for none; int32 [batch, anchors].
      anchors: float32 [anchors, 4].
      boxes, box_weights: for each image of the batch, as in `are_inside`.

    Returns:
      The new weights; float32 [batch, anchors, classes + 1].
    """
    inside = tf.stack([are_inside(anchors, *each) for each in zip(boxes, box_weights, strict=True)])
    return tf.where((inside & (match < 0))[..., None], tf.zeros_like(weights), weights)
