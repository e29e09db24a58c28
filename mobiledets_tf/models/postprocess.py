"""Post-processing from raw boxes and logits to detections: anchors, box decoding, non-maximum suppression.

The search, float evaluation and export share this definition. The constants are those of the TF1
sample configs `ssdlite_mobiledet_*_320x320_coco_sync_4x4.config`.
"""

import functools
from typing import Any

import numpy as np

from mobiledets_tf.architecture import ANCHORS_PER_LOCATION, PUBLISHED, Architecture, feature_maps, image_hw
from mobiledets_tf.architecture.head import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD
from mobiledets_tf.compat import enable_object_detection, tf
from mobiledets_tf.errors import InputError, unknown_name

ANCHOR_MIN_SCALE, ANCHOR_MAX_SCALE = 0.2, 0.95
ANCHOR_ASPECT_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
# Divisors of (ty, tx, th, tw): faster_rcnn_box_coder's y, x, height and width scales.
BOX_SCALES = (10.0, 10.0, 5.0, 5.0)


def anchors(architecture: Architecture, image_size: int | tuple[int, int]) -> np.ndarray:
    """Returns the detector's anchors, made by the Object Detection API's own generator.

    Args:
      architecture: architecture of the network; only the sizes of its six feature maps matter.
      image_size: side, or (height, width), in pixels.

    Returns:
      [anchors, 4] float32 (ymin, xmin, ymax, xmax) as fractions of the image, in the order of
      `build_detector`'s outputs. Anchors near the border extend beyond [0, 1]. The array is read-only.

    Raises:
      InputError: the image size does not allow six feature maps.
    """
    sizes = tuple(level.size for level in feature_maps(architecture, image_size))
    return _generate(sizes, image_hw(image_size))


@functools.lru_cache(maxsize=16)
def _generate(map_sizes: tuple[tuple[int, int], ...], image_size: tuple[int, int]) -> np.ndarray:
    enable_object_detection()
    from object_detection.anchor_generators import multiple_grid_anchor_generator

    generator = multiple_grid_anchor_generator.create_ssd_anchors(
        num_layers=len(map_sizes),
        min_scale=ANCHOR_MIN_SCALE,
        max_scale=ANCHOR_MAX_SCALE,
        aspect_ratios=ANCHOR_ASPECT_RATIOS,
        reduce_boxes_in_lowest_layer=True,
    )
    assert tuple(generator.num_anchors_per_location()) == ANCHORS_PER_LOCATION
    # init_scope makes this work while a tf.function is being traced.
    with tf.init_scope():
        maps = generator.generate(list(map_sizes), im_height=image_size[0], im_width=image_size[1])
        boxes = np.concatenate([boxlist.get().numpy() for boxlist in maps])
    boxes.setflags(write=False)
    return boxes


def to_center_size(boxes: np.ndarray) -> np.ndarray:
    """Converts boxes [N, 4] from (ymin, xmin, ymax, xmax) to (ycenter, xcenter, height, width)."""
    minimum, maximum = boxes[:, :2], boxes[:, 2:]
    size = maximum - minimum
    return np.concatenate([minimum + size / 2, size], axis=1)


def decode(raw_boxes: tf.Tensor, anchors: np.ndarray) -> tf.Tensor:
    """Decodes the network's box codes in the same way as the API's faster_rcnn_box_coder.

    Args:
      raw_boxes: [batch, anchors, 4] float32 (ty, tx, th, tw).
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax).

    Returns:
      [batch, anchors, 4] float32 (ymin, xmin, ymax, xmax) as fractions of the image, not clipped.
    """
    center_size = to_center_size(anchors)
    codes = tf.cast(raw_boxes, tf.float32) / tf.constant(BOX_SCALES)
    center = codes[..., :2] * center_size[:, 2:] + center_size[:, :2]
    half = tf.exp(codes[..., 2:]) * center_size[:, 2:] / 2
    return tf.concat([center - half, center + half], axis=-1)


def detections(
    raw_boxes: tf.Tensor,
    class_logits: tf.Tensor,
    anchors: np.ndarray,
    max_detections: int = MAX_DETECTIONS,
    iou_threshold: float = IOU_THRESHOLD,
    score_threshold: float = SCORE_THRESHOLD,
    nms: str = "regular",
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes detections: decodes boxes, applies the sigmoid, then `suppress` or `suppress_fast`.

    Args:
      raw_boxes: [batch, anchors, 4] float32 (ty, tx, th, tw).
      class_logits: [batch, anchors, classes + 1] float32; slot 0, the background, is unused.
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax).
      max_detections, iou_threshold, score_threshold: as in `suppress`.
      nms: `regular` (separately for each class) or `fast` (across classes).

    Returns:
      The same outputs as `suppress`.
    """
    scores = tf.sigmoid(tf.cast(class_logits, tf.float32))
    run = SUPPRESSIONS[nms]
    return run(decode(raw_boxes, anchors), scores, max_detections, iou_threshold, score_threshold)


def decode_detections(
    outputs: Any,
    image_size: int | tuple[int, int],
    max_detections: int = MAX_DETECTIONS,
    iou_threshold: float = IOU_THRESHOLD,
    score_threshold: float = SCORE_THRESHOLD,
    nms: str = "regular",
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes detections from the outputs of a detector of any architecture.

    Example:
      ```python
      import numpy as np
      from mobiledets_tf.models import MobileDet, decode_detections

      model = MobileDet("edgetpu", num_classes=10, image_size=160)
      images = np.zeros((2, 160, 160, 3), np.float32)  # pixels / 127.5 - 1
      boxes, scores, classes, count = decode_detections(model(images), 160, score_threshold=0.3)
      ```

    Args:
      outputs: [raw_boxes, class_logits] of `build_detector` or `MobileDet`.
      image_size: side, or (height, width), in pixels, of the model's input.
      max_detections, iou_threshold, score_threshold: as in `suppress`; the defaults are those of COCO
        evaluation, which keep nearly everything.
      nms: `regular` (separately for each class) or `fast` (across classes).

    Returns:
      boxes [batch, max_detections, 4] float32 (ymin, xmin, ymax, xmax) as fractions of the image,
      scores [batch, max_detections] float32 in descending order,
      classes [batch, max_detections] int32, counted from 1 as in label maps,
      count [batch] int32; rows after the count are zero (class 1).

    Raises:
      InputError: the outputs are not those of a model with this image size, or `nms` is unknown.
    """
    if nms not in SUPPRESSIONS:
        raise unknown_name("nms", nms, SUPPRESSIONS)
    raw_boxes, class_logits = outputs
    # The feature maps of all architectures have the same strides.
    boxes = anchors(PUBLISHED["edgetpu"](), image_size)
    if raw_boxes.shape[1] != len(boxes):
        raise InputError(
            f"the outputs have {raw_boxes.shape[1]} anchors, but a model with image size {image_size} has "
            f"{len(boxes)}"
        )
    return detections(raw_boxes, class_logits, boxes, max_detections, iou_threshold, score_threshold, nms)


def suppress(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    max_detections: int = MAX_DETECTIONS,
    iou_threshold: float = IOU_THRESHOLD,
    score_threshold: float = SCORE_THRESHOLD,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Applies non-maximum suppression separately to each class.

    `tf.image.combined_non_max_suppression` traces and runs in milliseconds, whereas the API's own
    post-processing needs a minute to trace; the AP is the same.

    Args:
      boxes: [batch, anchors, 4] float32 (ymin, xmin, ymax, xmax) as fractions of the image.
      scores: [batch, anchors, classes + 1] float32; slot 0, the background, is unused.
      max_detections: maximum number of detections per image, and also per class.
      iou_threshold: a box is dropped if its IoU with a higher-scoring box of its class is above this.
      score_threshold: boxes with lower scores are dropped.

    Returns:
      boxes [batch, max_detections, 4] float32 (ymin, xmin, ymax, xmax) clipped to [0, 1],
      scores [batch, max_detections] float32 in descending order,
      classes [batch, max_detections] int32, counted from 1 as in label maps,
      count [batch] int32; rows after the count are zero (class 1).
    """
    boxes, scores, classes, count = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis],
        scores[..., 1:],
        max_output_size_per_class=max_detections,
        max_total_size=max_detections,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        clip_boxes=True,
    )
    return boxes, scores, tf.cast(classes, tf.int32) + 1, count


def suppress_fast(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    max_detections: int = MAX_DETECTIONS,
    iou_threshold: float = IOU_THRESHOLD,
    score_threshold: float = SCORE_THRESHOLD,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Applies one non-maximum suppression across classes to the best class of each anchor.

    The `TFLite_Detection_PostProcess` op does the same if `use_regular_nms` is false and each detection has
    one class. Arguments and results are those of `suppress`.
    """
    classes = tf.argmax(scores[..., 1:], axis=-1, output_type=tf.int32) + 1
    best = tf.reduce_max(scores[..., 1:], axis=-1)

    def of_image(
        given: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        boxes, best, classes = given
        kept, count = tf.image.non_max_suppression_padded(
            boxes, best, max_detections, iou_threshold, score_threshold, pad_to_max_output_size=True
        )
        valid = tf.range(max_detections) < count
        found = tf.where(valid[:, tf.newaxis], tf.clip_by_value(tf.gather(boxes, kept), 0.0, 1.0), 0.0)
        scores = tf.where(valid, tf.gather(best, kept), 0.0)
        return found, scores, tf.where(valid, tf.gather(classes, kept), 1), count

    return tf.map_fn(
        of_image, (boxes, best, classes), fn_output_signature=(tf.float32, tf.float32, tf.int32, tf.int32)
    )


SUPPRESSIONS = {"regular": suppress, "fast": suppress_fast}
