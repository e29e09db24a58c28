"""One conversion at full size: the figures of the published edgetpu network."""

import pytest

from mobiledets_tf.cli import export
from tflite_export.tflite import model_file


@pytest.mark.slow
def test_int8_edgetpu_has_the_published_operations(tmp_path, capsys):
    out = tmp_path / "out"
    flags = {"architecture": "edgetpu", "num_classes": 90, "calibration_images": 4, "output_dir": out}
    assert export.run(["test", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    printed = capsys.readouterr()
    assert "fresh weights, for timing only" in printed.err
    assert "calibrated on noise" in printed.err
    model = model_file.read(out / "detector.tflite")
    operations = model.histogram()
    assert operations.pop("RESHAPE") <= 13
    assert operations == {
        "CONV_2D": 66,
        "DEPTHWISE_CONV_2D": 27,
        "ADD": 15,
        "CONCATENATION": 2,
        "LOGISTIC": 1,
        "TFLite_Detection_PostProcess": 1,
        "QUANTIZE": 1,
        "DEQUANTIZE": 2,
    }
    assert [op.name for op in model.float_operators()] == ["TFLite_Detection_PostProcess"]
    assert model.inputs[0].dtype == "UINT8"
    assert model.inputs[0].scales[0] == pytest.approx(1 / 127.5, rel=1e-6)
    assert len((out / "labels.txt").read_text().splitlines()) == 90
    # 4.2 million parameters in one byte each.
    assert 4_000_000 < model.size < 5_500_000
