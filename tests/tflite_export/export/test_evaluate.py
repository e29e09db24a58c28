"""COCO metrics of files and Keras models on the same images."""

import dataclasses

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.data import records
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.models import postprocess
from tflite_export.detector.keras_detector import KerasDetector
from tflite_export.export import drawings, evaluate
from tflite_export.export.evaluate import Detections, FileDetector
from tflite_export.tflite import pixels
from tflite_export.tflite.suppression import Suppression

SIZE = 96  # of the detector in conftest.py


@pytest.fixture(scope="module")
def files(folder):
    return records.resolve(str(folder), "val")


def nothing(image):
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))


def test_boxes_become_pixels_of_their_own_image():
    found = Detections(np.array([[0.1, 0.2, 0.5, 1.0]]), np.array([0.75]), np.array([3]))
    (result,) = evaluate.to_coco(found, {"id": 7, "height": 200, "width": 100})
    assert result["bbox"] == pytest.approx([20, 20, 80, 80])
    assert (result["image_id"], result["category_id"], result["score"]) == (7, 3, 0.75)


def test_files_have_the_metrics_of_the_keras_model(files, tflite, detector, anchors, pictures):
    settings = Suppression()
    detectors = {
        "float": KerasDetector(detector, anchors, settings),
        "float_tflite": FileDetector(tflite("float", "float"), anchors, settings),
        "int8": FileDetector(tflite("int8", "uint8"), anchors, settings),
        "int8 raw": FileDetector(tflite("int8", "int8", "none"), anchors, settings),
    }
    result = evaluate.evaluate(detectors, files, (SIZE, SIZE), show=2)
    assert result.images == len(pictures)
    metrics = result.metrics
    # The ground truth is the float model's own best boxes.
    assert metrics["float"]["AP50"] > 0.5
    assert metrics["float_tflite"] == pytest.approx(metrics["float"], abs=1e-3)
    assert metrics["int8"]["AR100"] > 0.5 * metrics["float"]["AR100"]
    # The same network; the files differ in who decodes and suppresses.
    assert metrics["int8 raw"] == pytest.approx(metrics["int8"], abs=0.05)
    assert [shown.name for shown in result.shown] == ["100", "101"]
    assert drawings.detections_png(result.shown, ["a", "b", "$c$"]).startswith(b"\x89PNG")


def test_the_post_process_op_finds_what_our_suppression_finds(tflite, anchors, pictures):
    path = tflite("int8", "uint8")
    detect, settings = FileDetector(path, anchors, Suppression()), dataclasses.astuple(Suppression())[:3]
    from ai_edge_litert.interpreter import Interpreter

    seen = Interpreter(path, experimental_preserve_all_tensors=True)
    seen.allocate_tensors()
    given = seen.get_input_details()[0]
    (op,) = (found for found in seen._get_ops_details() if "PostProcess" in found["op_name"])
    for picture in tf.image.resize(pictures, (SIZE, SIZE)).numpy():
        image = (picture[np.newaxis] / 127.5 - 1).astype(np.float32)
        seen.set_tensor(given["index"], pixels.quantize(image, np.uint8, *given["quantization"]))
        seen.invoke()
        raw_boxes, scores = (seen.get_tensor(index) for index in op["inputs"][:2])
        kept = postprocess.suppress(postprocess.decode(raw_boxes, anchors), scores, *settings)
        expected = np.sort(kept[1].numpy()[0, : int(kept[3][0])])
        np.testing.assert_allclose(np.sort(detect(image).scores), expected, atol=1e-6)


def test_a_detector_that_knows_the_truth_is_perfect_on_real_photos(shared, tmp_path):
    """Decoding, sizes, clipping, class ids and image ids, from COCO files to AP 1."""
    from mobiledets_tf.cli import data

    flags = {"mode": "convert", "images": shared / "data" / "cards_tiny", "output_dir": tmp_path / "r"}
    assert data.run(["x", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    cards = records.resolve(str(tmp_path / "r"), "val")
    truth = iter(list(records.read_examples(cards)))
    seen = []

    def oracle(image):
        example = next(truth)
        seen.append((image.shape, float(image.min()), float(image.max())))
        return Detections(example.boxes, np.ones(len(example.boxes), np.float32), example.classes)

    result = evaluate.evaluate({"oracle": oracle}, cards, (SIZE, SIZE))
    assert result.metrics["oracle"]["AP"] == pytest.approx(1)
    assert result.metrics["oracle"]["AR100"] == pytest.approx(1)
    assert len(seen) == result.images == 16
    assert all(shape == (1, SIZE, SIZE, 3) and -1 <= low < high <= 1 for shape, low, high in seen)


def test_only_the_first_images_on_request(files):
    result = evaluate.evaluate({"none": nothing}, files, (SIZE, SIZE), max_images=2)
    assert result.images == 2
    assert result.metrics["none"]["AP"] == 0


def test_no_metric_unless_every_image_was_seen(files, monkeypatch):
    read = records.read_examples
    truth = records.ground_truth(files)
    monkeypatch.setattr(records, "ground_truth", lambda files: truth)
    monkeypatch.setattr(records, "read_examples", lambda files: list(read(files))[:-1])
    with pytest.raises(CheckFailed, match="5 of 6 images"):
        evaluate.evaluate({"none": nothing}, files, (SIZE, SIZE))


def test_numbers_that_are_not_finite_fail(files):
    def broken(image):
        return Detections(np.array([[0, 0, 1, np.nan]]), np.ones(1), np.ones(1, int))

    with pytest.raises(CheckFailed, match="the broken detector .* image 100"):
        evaluate.evaluate({"broken": broken}, files, (SIZE, SIZE))


def test_a_damaged_record_file_is_refused(files, folder, tmp_path):
    data = bytearray((folder / "val-00000-of-00001.tfrecord").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "label_map.pbtxt").write_text((folder / "label_map.pbtxt").read_text())
    path = tmp_path / "val-00000-of-00001.tfrecord"
    path.write_bytes(data)
    with pytest.raises(InputError, match="val-00000-of-00001"):
        evaluate.evaluate({"none": nothing}, [str(path)], (SIZE, SIZE))


def test_an_image_that_cannot_be_decoded_is_named(folder, tmp_path, make_example):
    (tmp_path / "label_map.pbtxt").write_text((folder / "label_map.pbtxt").read_text())
    path = tmp_path / "val-00000-of-00001.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        example = make_example(b"\xff\xd8\xff broken", "31", (10, 10, 3), np.zeros((0, 4)), np.zeros(0))
        writer.write(example.SerializeToString())
    with pytest.raises(InputError, match="image 31 cannot be decoded"):
        evaluate.evaluate({"none": nothing}, [str(path)], (SIZE, SIZE))


def test_a_model_of_another_kind_is_refused(anchors, tmp_path):
    spec = tf.TensorSpec((1, 4), tf.float32, name="x")
    double = tf.function(lambda x: {"y": x * 2}, input_signature=[spec])
    module = tf.Module()
    module.double = double
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": double})
    path = tmp_path / "double.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
    with pytest.raises(InputError, match=r"maps \['x'\] to \['y'\]"):
        FileDetector(path, anchors, Suppression())
