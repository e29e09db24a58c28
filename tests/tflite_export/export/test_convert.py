"""The .tflite files against the Keras model, and what is in them."""

import dataclasses

import numpy as np
import pytest

from mobiledets_tf.compat import enable_object_detection, tf
from mobiledets_tf.data import preprocessing
from mobiledets_tf.errors import InputError
from tflite_export.detector.keras_detector import KerasDetector
from tflite_export.export import convert, quantize
from tflite_export.export.evaluate import FileDetector
from tflite_export.tflite import model_file, pixels, runtime
from tflite_export.tflite.suppression import Suppression

SIZE, CLASSES = 96, 3  # of the detector in conftest.py
NETWORK_OPS = {
    "CONV_2D": 66,
    "DEPTHWISE_CONV_2D": 27,
    "ADD": 15,
    "CONCATENATION": 2,
    "LOGISTIC": 1,
    "RESHAPE": 12,
}
POSTPROCESS = "TFLite_Detection_PostProcess"


@pytest.fixture(scope="module")
def image(pictures):
    return preprocessing.normalize(preprocessing.resize(pictures[0], (SIZE, SIZE)))[np.newaxis]


def assert_same_detections(found, expected, tolerance):
    assert len(found.scores) == len(expected.scores) > 20
    np.testing.assert_allclose(found.scores, expected.scores, atol=tolerance)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=tolerance)


def test_float_file_finds_what_the_keras_model_finds(tflite, detector, anchors, image):
    found = FileDetector(tflite("float", "float"), anchors, Suppression())(image)
    expected = KerasDetector(detector, anchors, Suppression())(image)
    assert len(set(expected.classes)) > 1
    assert_same_detections(found, expected, 1e-4)


def test_post_process_op_is_the_float_paths_suppression(tflite, anchors, image):
    """The same network in both files: only the post-processing differs."""
    found = FileDetector(tflite("float", "float"), anchors, Suppression())(image)
    expected = FileDetector(tflite("float", "float", "none"), anchors, Suppression())(image)
    assert_same_detections(found, expected, 1e-5)


def test_suppression_settings_reach_the_op(detector, anchors, image, tmp_path):
    settings = Suppression(max_detections=15, iou_threshold=0.3, score_threshold=0.02)
    path = tmp_path / "strict.tflite"
    options = convert.Options("float", "float", suppression=settings)
    path.write_bytes(convert.convert(detector, anchors, options))
    found = FileDetector(path, anchors, settings)(image)
    expected = KerasDetector(detector, anchors, settings)(image)
    assert len(found.scores) == 15
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_array_equal(found.classes, expected.classes)


def test_int8_outputs_follow_the_float_network(tflite, detector, image):
    runner = runtime.open_model(tflite("int8", "int8", "none")).get_signature_runner()
    details = runner.get_input_details()["image"]
    outputs = runner(image=pixels.quantize(image, details["dtype"], *details["quantization"]))
    raw_boxes, logits = (output.numpy() for output in detector(image))
    expected = {"raw_boxes": raw_boxes, "class_scores": 1 / (1 + np.exp(-logits))}
    for name, values in expected.items():
        scale, zero_point = runner.get_output_details()[name]["quantization"]
        assert outputs[name].dtype == np.int8
        found = (outputs[name].astype(np.float32) - zero_point) * scale
        assert np.corrcoef(found.ravel(), values.ravel())[0, 1] > 0.9
        assert np.abs(found - values).mean() < 0.05 * np.ptp(values)


def test_uint8_input_takes_raw_pixels_and_gives_what_int8_gives(tflite, pictures):
    pixels = np.round(preprocessing.resize(pictures[0], (SIZE, SIZE)))[np.newaxis]
    as_uint8 = runtime.open_model(tflite("int8", "uint8")).get_signature_runner()
    as_int8 = runtime.open_model(tflite("int8", "int8")).get_signature_runner()
    scale, zero_point = as_uint8.get_input_details()["image"]["quantization"]
    assert scale == pytest.approx(1 / 127.5, rel=1e-6)
    assert zero_point in (127, 128)
    assert as_int8.get_input_details()["image"]["quantization"] == (scale, zero_point - 128)
    found = as_uint8(image=pixels.astype(np.uint8))
    expected = as_int8(image=(pixels - 128).astype(np.int8))
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])


def test_pixels_survive_normalising_and_quantising():
    levels = np.arange(256, dtype=np.float32)
    quantised = pixels.quantize(preprocessing.normalize(levels), np.dtype(np.uint8), 1 / 127.5, 128)
    assert np.abs(quantised.astype(int) - levels).max() <= 1


def test_int8_file_with_post_processing_holds_these_operations(tflite):
    model = model_file.read(tflite("int8", "uint8"))
    assert model.histogram() == NETWORK_OPS | {"QUANTIZE": 1, "DEQUANTIZE": 2, POSTPROCESS: 1}
    assert [op.name for op in model.float_operators()] == [POSTPROCESS]
    assert [(t.dtype, t.shape) for t in model.inputs] == [("UINT8", (1, SIZE, SIZE, 3))]
    assert {t.dtype for t in model.outputs} == {"FLOAT32"}
    assert sorted(t.shape for t in model.outputs) == [(1,), (1, 100), (1, 100), (1, 100, 4)]
    assert model.signatures == {
        "serving_default": {"inputs": ["image"], "outputs": ["output_0", "output_1", "output_2", "output_3"]}
    }


def test_int8_file_without_post_processing_is_integer_from_end_to_end(tflite, anchors):
    model = model_file.read(tflite("int8", "int8", "none"))
    assert model.histogram() == NETWORK_OPS
    assert not model.float_operators()
    assert sorted(t.shape for t in model.outputs) == [(1, len(anchors), 4), (1, len(anchors), CLASSES + 1)]
    assert {t.dtype for t in (*model.inputs, *model.outputs)} == {"INT8"}


def test_float_input_puts_quantise_in_front(tflite):
    model = model_file.read(tflite("int8", "float"))
    assert model.inputs[0].dtype == "FLOAT32"
    assert model.histogram()["QUANTIZE"] == 1


def test_a_float_model_refuses_an_integer_input():
    with pytest.raises(InputError, match="uint8"):
        convert.Options("float", "uint8")


def test_calibration_is_a_seeded_draw(folder):
    files = [str(folder / "train-00000-of-00001.tfrecord")]
    first, again, other = (quantize.from_records(files, (SIZE, SIZE), 3, seed) for seed in (1, 1, 2))
    names = [[name for name, _ in draw.images] for draw in (first, again, other)]
    assert names[0] == names[1] != names[2]
    assert len(set(names[0])) == 3
    assert first.summary() == {"source": "images", "count": 3, "seed": 1}


def test_calibration_takes_what_there_is_and_spans_the_input_range(calibration, pictures):
    samples = [sample["image"] for sample in calibration.samples()]
    assert [sample.shape for sample in samples] == [(1, SIZE, SIZE, 3)] * len(pictures)
    assert samples[0].min() == -1
    assert samples[0].max() == 1


def test_a_reservoir_is_uniform():
    counts = np.zeros(10)
    for seed in range(2000):
        counts[quantize._reservoir(iter(range(10)), 3, np.random.default_rng(seed))] += 1
    assert np.abs(counts / 2000 - 0.3).max() < 0.05


def test_an_image_that_cannot_be_decoded_is_named(detector, anchors, calibration):
    damaged = dataclasses.replace(calibration, images=(("4711", b"\xff\xd8 no image"),))
    with pytest.raises(InputError, match="image 4711 cannot be decoded"):
        convert.convert(detector, anchors, convert.Options(), damaged)


def test_int8_needs_calibration(detector, anchors):
    with pytest.raises(ValueError, match="int8 without calibration"):
        convert.convert(detector, anchors, convert.Options())


def test_resizing_is_the_training_pipelines(pictures):
    enable_object_detection()
    from google.protobuf import text_format
    from object_detection.builders import image_resizer_builder
    from object_detection.protos import image_resizer_pb2

    text = f"fixed_shape_resizer {{ height: {SIZE} width: 64 }}"
    resizer = image_resizer_builder.build(text_format.Parse(text, image_resizer_pb2.ImageResizer()))
    expected = resizer(tf.constant(pictures[0], tf.float32))[0]
    np.testing.assert_array_equal(preprocessing.resize(pictures[0], (SIZE, 64)), expected)


def test_per_tensor_weights_have_one_scale(detector, anchors, calibration):
    options = convert.Options("int8", "int8", "none", per_tensor=True)
    model = model_file.parse(convert.convert(detector, anchors, options, calibration))
    convolutions = [op for op in model.operators if op.name == "CONV_2D"]
    assert {len(op.inputs[1].scales) for op in convolutions} == {1}
