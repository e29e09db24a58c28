"""The post-process op of a finished file: changed without converting, right on every number of threads."""

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.data import preprocessing
from mobiledets_tf.errors import InputError
from mobiledets_tf.models import postprocess
from tflite_export.detector.keras_detector import KerasDetector
from tflite_export.export.evaluate import FileDetector
from tflite_export.tflite import flatbuffer, metadata, model_file, suppression
from tflite_export.tflite.suppression import SHIPPED, Suppression

SIZE, CLASSES = 96, 3  # of the detector in conftest.py


@pytest.fixture(scope="module")
def image(pictures):
    return preprocessing.normalize(preprocessing.resize(pictures[0], (SIZE, SIZE)))[np.newaxis]


@pytest.fixture(scope="module")
def data(tflite):
    return tflite("float", "float").read_bytes()


def same(one, other, tolerance=1e-4):
    assert len(one.scores) == len(other.scores) > 5
    np.testing.assert_allclose(one.scores, other.scores, atol=tolerance)
    np.testing.assert_array_equal(one.classes, other.classes)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=tolerance)


@pytest.mark.parametrize("nms", suppression.NMS)
@pytest.mark.parametrize(("count", "threshold"), [(100, 1e-8), (15, 0.02)])
def test_a_changed_file_finds_what_the_model_finds(data, detector, anchors, image, nms, count, threshold):
    settings = Suppression(count, 0.4, threshold, nms)
    found = FileDetector(suppression.changed(data, settings), anchors, settings)(image)
    same(found, KerasDetector(detector, anchors, settings)(image))
    assert len(found.scores) <= count and found.scores.min() >= threshold


def test_fast_is_right_on_any_number_of_threads_and_regular_is_not(data, anchors, image):
    """Regular on N threads never looks at class N + 1; if that ends, the note in the report can go."""
    fast = suppression.changed(data, Suppression(nms="fast"))
    regular = suppression.changed(data, Suppression(nms="regular"))
    alone = [FileDetector(file, anchors, None, 1)(image) for file in (fast, regular)]
    assert set(alone[1].classes) == {1, 2, 3}
    for threads in (2, 3, 4, 8):
        same(FileDetector(fast, anchors, None, threads)(image), alone[0], 0)
        lost = FileDetector(regular, anchors, None, threads)(image)
        assert set(lost.classes) == {1, 2, 3} - {threads + 1}


def test_fast_keeps_one_class_an_anchor():
    """By hand: two classes in one place, a third box apart."""
    boxes = tf.constant([[[0, 0, 0.4, 0.4], [0, 0, 0.41, 0.4], [0.5, 0.5, 1.2, 1]]], tf.float32)
    scores = tf.constant([[[0, 0.9, 0.8], [0, 0.1, 0.85], [0, 0.3, 0.2]]], tf.float32)
    found, values, classes, count = postprocess.suppress_fast(boxes, scores, 5, 0.5, 0.05)
    assert count.numpy().tolist() == [2]
    np.testing.assert_allclose(values[0, :2], [0.9, 0.3])
    assert classes.numpy()[0].tolist() == [1, 1, 1, 1, 1]
    np.testing.assert_allclose(found[0, 1], [0.5, 0.5, 1, 1])
    regular = postprocess.suppress(boxes, scores, 5, 0.5, 0.05)
    np.testing.assert_allclose(regular[1][0, :4], [0.9, 0.85, 0.3, 0.2])


def test_all_settings_are_in_the_file(data):
    settings = Suppression(300, 0.5, 0.25, "regular")
    model = flatbuffer.unpack(suppression.changed(data, settings))
    assert suppression.of_file(model) == settings
    # OpenCV reads the ten values of the converter and no others: in a file of 4-byte values.
    assert len(suppression.options_of(model)) == 10
    assert "detections_per_class" not in suppression.options_of(model)
    assert suppression.options_of(model)["num_classes"] == CLASSES
    shapes = [tensor.shape for tensor in model_file.parse(flatbuffer.pack(model)).outputs]
    assert shapes == [(1, 300, 4), (1, 300), (1, 300), (1,)]


def test_a_shipped_file_keeps_its_metadata_only_where_it_is_not_changed(data):
    whole = metadata.add(data, ["a", "b", "c"], "edgetpu", 0.2, "1")
    assert metadata.labels_of(whole) == ["a", "b", "c"]
    assert metadata.labels_of(suppression.changed(whole, SHIPPED)) is None


def test_constants_lie_on_sixteen_bytes(data):
    model = flatbuffer.schema.Model.GetRootAs(suppression.changed(data, SHIPPED), 0)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    starts = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
    assert len(starts) > 100
    assert not any(start % 16 for start in starts)


def test_a_file_without_the_op_stays(tflite):
    data = tflite("int8", "int8", "none").read_bytes()
    assert suppression.of_file(flatbuffer.unpack(data)) is None
    changed = suppression.changed(data, SHIPPED)
    assert model_file.parse(changed).histogram() == model_file.parse(data).histogram()


def test_damaged_options_are_named(data):
    model = flatbuffer.unpack(data)
    op = next(op for op in model.subgraphs[0].operators if op.customOptions is not None)
    op.customOptions = np.zeros(3, np.uint8)
    with pytest.raises(InputError, match="damaged"):
        suppression.options_of(model)


@pytest.mark.parametrize("count", [0, -3, 10**7])
def test_numbers_out_of_range_are_refused(data, count):
    model = flatbuffer.unpack(suppression.changed(data, Suppression(count)))
    with pytest.raises(InputError, match="max_detections"):
        suppression.of_file(model)
