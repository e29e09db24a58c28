"""Decoding and suppression against the Object Detection API's own."""

import numpy as np
import pytest

from mobiledets_tf.architecture import PUBLISHED, load, num_anchors
from mobiledets_tf.compat import enable_object_detection, tf
from mobiledets_tf.errors import InputError
from mobiledets_tf.models import postprocess


def _random_outputs(anchors: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    raw_boxes = rng.normal(0, 1, (2, anchors, 4)).astype(np.float32)
    return raw_boxes, rng.normal(-3, 2, (2, anchors, classes + 1)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.parametrize("size", [320, 96, (160, 256)])
def test_one_anchor_for_each_output_row(name, size):
    boxes = postprocess.anchors(load(name), size)
    assert boxes.shape == (num_anchors(load(name), size), 4)
    assert boxes.dtype == np.float32


def test_first_anchors_by_hand():
    """At 320: a 20x20 map; scale 0.1 square, then scale 0.2 at ratios 2 and 1/2."""
    center_size = postprocess.to_center_size(postprocess.anchors(load("edgetpu"), 320))
    root = np.sqrt(2.0)
    expected = [
        [0.025, 0.025, 0.1, 0.1],
        [0.025, 0.025, 0.2 / root, 0.2 * root],
        [0.025, 0.025, 0.2 * root, 0.2 / root],
    ]
    np.testing.assert_allclose(center_size[:3], expected, atol=1e-6)
    # The last map is 1x1; its last anchor is the square of scale sqrt(0.95 * 1.0).
    np.testing.assert_allclose(center_size[-1], [0.5, 0.5, np.sqrt(0.95), np.sqrt(0.95)], atol=1e-6)


def test_anchors_of_a_wide_image_are_square_in_pixels():
    center_size = postprocess.to_center_size(postprocess.anchors(load("edgetpu"), (160, 320)))
    assert center_size[0, 2] * 160 == pytest.approx(center_size[0, 3] * 320)


def test_anchors_refuse_a_small_image():
    with pytest.raises(InputError, match="six feature maps"):
        postprocess.anchors(load("edgetpu"), 32)


def test_anchors_inside_a_traced_function():
    traced = tf.function(lambda: tf.constant(postprocess.anchors(load("edgetpu"), 128)))
    np.testing.assert_array_equal(traced(), postprocess.anchors(load("edgetpu"), 128))


def test_decode_is_the_apis_box_coder():
    enable_object_detection()
    from object_detection.box_coders.faster_rcnn_box_coder import FasterRcnnBoxCoder
    from object_detection.core.box_list import BoxList

    anchors = postprocess.anchors(load("edgetpu"), 96)
    raw_boxes, _ = _random_outputs(len(anchors), 1)
    coder = FasterRcnnBoxCoder(list(postprocess.BOX_SCALES))
    expected = [coder.decode(codes, BoxList(tf.constant(anchors))).get() for codes in raw_boxes]
    np.testing.assert_allclose(postprocess.decode(raw_boxes, anchors), expected, atol=1e-6)


def test_detections_are_the_apis():
    """Boxes inside the image, where the API's clipping before suppression changes nothing."""
    enable_object_detection()
    from object_detection.core.post_processing import batch_multiclass_non_max_suppression

    anchors = postprocess.anchors(load("edgetpu"), 96)
    raw_boxes, logits = _random_outputs(len(anchors), 3)
    logits[:, (anchors.min(1) < 0.1) | (anchors.max(1) > 0.9)] = -30
    boxes, scores, classes, count = postprocess.detections(
        raw_boxes, logits, anchors, 20, score_threshold=1e-6
    )
    expected = batch_multiclass_non_max_suppression(
        postprocess.decode(raw_boxes, anchors)[:, :, None],
        tf.sigmoid(logits[..., 1:]),
        1e-6,
        0.6,
        20,
        20,
        clip_window=tf.constant([0.0, 0.0, 1.0, 1.0]),
    )
    np.testing.assert_array_equal(count, expected[5])
    assert list(count) == [20, 20]
    np.testing.assert_allclose(scores, expected[1], atol=1e-6)
    np.testing.assert_array_equal(classes, expected[2] + 1)
    np.testing.assert_allclose(boxes, expected[0], atol=1e-5)


def test_a_lower_box_of_the_same_class_is_dropped_and_of_another_kept():
    anchors = np.array([[0.2, 0.2, 0.4, 0.4], [0.21, 0.2, 0.41, 0.4], [0.6, 0.6, 0.9, 0.9]], np.float32)
    logits = np.full((1, 3, 3), -30, np.float32)
    logits[0, 0, 1], logits[0, 1, 1], logits[0, 1, 2], logits[0, 2, 0] = 2, 1, 0, 9
    boxes, scores, classes, count = postprocess.detections(np.zeros((1, 3, 4)), logits, anchors)
    assert int(count[0]) == 2  # the background's 9 is no detection
    assert list(classes[0, :2].numpy()) == [1, 2]
    np.testing.assert_allclose(scores[0, :2], [1 / (1 + np.exp(-2)), 0.5], atol=1e-6)
    np.testing.assert_allclose(boxes[0, :2], anchors[:2], atol=1e-6)
