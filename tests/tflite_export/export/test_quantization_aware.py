"""Export of quantisation-aware training: its weights, its ranges, its file."""

import json

import numpy as np
import pytest

from mobiledets_tf.cli import export
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.models import build_detector
from tflite_export.export import quantization_aware
from tflite_export.tflite import model_file
from tflite_export.tflite.model_file import CUSTOM_OP

SIZE, CLASSES = 96, 3  # of the detector in conftest.py


@pytest.fixture(scope="module")
def quantized(network, training, calibration):
    """The training's weights with observed ranges."""
    found, has_ranges = quantization_aware.load(build_detector(network, CLASSES, SIZE), str(training))
    assert not has_ranges
    quantization_aware.observe_ranges(found, calibration)
    return found


def test_ranges_are_observed_and_weights_stay(quantized, detector):
    for weight in detector.weights:
        np.testing.assert_array_equal(quantized.named_weights[weight.name], weight, err_msg=weight.name)
    lows = [value.numpy() for name, value in quantized.ranges.items() if name.endswith("_min:0")]
    highs = [value.numpy() for name, value in quantized.ranges.items() if name.endswith("_max:0")]
    assert all(low < high for low, high in zip(lows, highs, strict=True))
    normal = [layer.layer for layer in quantized.network.layers if hasattr(layer, "layer")]
    assert all(layer.trainable for layer in normal if isinstance(layer, keras.layers.BatchNormalization))


def test_ranges_of_a_checkpoint_are_taken(quantized, network, tmp_path):
    model = tf.train.Checkpoint(
        named_weights=dict(quantized.named_weights), ranges=dict(quantized.ranges)
    )  # As quantisation-aware training writes it.
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "ckpt"))
    found, has_ranges = quantization_aware.load(build_detector(network, CLASSES, SIZE), path)
    assert has_ranges
    for name, value in quantized.ranges.items():
        assert found.ranges[name].numpy() == value.numpy()


@pytest.mark.slow
def test_the_command_writes_an_int8_file_near_the_float_one(training, folder, tmp_path, capsys):
    flags = {
        "checkpoint_dir": training,
        "calibration_data": folder,
        "eval_data": folder,
        "quantization": "qat",
        "output_dir": tmp_path / "out",
    }
    assert export.run(["x", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["options"]["quantization"], report["ranges"]) == ("qat", "calibration")
    assert report["int8"]["AP50"] > 0.3
    assert report["readiness"]["edgetpu"]["ready"]
    model = model_file.read(tmp_path / "out" / "detector.tflite")
    assert [op.name for op in model.float_operators()] == [CUSTOM_OP]
    assert model.inputs[0].dtype == "UINT8"
    assert model.inputs[0].scales[0] == pytest.approx(2 / 255)
    operations = model.histogram()
    assert operations["RESHAPE"] <= 13
    assert {name: operations[name] for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "QUANTIZE")} == {
        "CONV_2D": 66,
        "DEPTHWISE_CONV_2D": 27,
        "ADD": 15,
        "QUANTIZE": 1,
    }
