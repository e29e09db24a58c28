"""Quantisation error against an independent computation, and the layer at fault by name."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tflite_export.export import quantization_error
from tflite_export.tflite import blocks, model_file, pixels, runtime
from tflite_export.tflite.model_file import CUSTOM_OP


@pytest.fixture(scope="module")
def samples(calibration):
    return [sample["image"] for sample in calibration.samples()][:2]


@pytest.mark.parametrize("postprocess", ["tflite", "none"])
def test_errors_are_those_of_the_outputs(tflite, detector, samples, postprocess):
    files = tflite("float", "float", postprocess), tflite("int8", "uint8", postprocess)
    found = quantization_error.compare(*files, samples)
    assert found.images == 2
    assert list(found.outputs) == ["raw_boxes", "class_scores"]
    # The same again by the Keras model and the file's signature; by the same kernels, since those of
    # XNNPACK round otherwise and a fresh network makes 38 steps of its outputs' scale out of that.
    interpreter = runtime.open_model(tflite("int8", "int8", "none"), keep_tensors=True)
    runner = interpreter.get_signature_runner()
    details, rows = runner.get_input_details()["image"], []
    for sample in samples:
        outputs = runner(image=pixels.quantize(sample, np.int8, *details["quantization"]))
        scale, zero_point = runner.get_output_details()["raw_boxes"]["quantization"]
        expected = detector(sample)[0].numpy()
        rows.append((expected, (outputs["raw_boxes"].astype(np.float32) - zero_point) * scale))
    expected, values = (np.concatenate(column) for column in zip(*rows, strict=True))
    relative = np.sqrt(np.mean((values - expected) ** 2)) / expected.std()
    assert found.outputs["raw_boxes"] == pytest.approx(relative, rel=1e-3)
    assert 0 < found.outputs["class_scores"] < 1


def test_most_layers_are_compared_and_sorted(tflite, samples, monkeypatch):
    monkeypatch.setattr(quantization_error, "LISTED_LAYERS", 1000)
    path = tflite("int8", "uint8")
    found = quantization_error.compare(tflite("float", "float"), path, samples)
    model = model_file.read(path)
    computing = [op for op in model.operators if op.name not in ("QUANTIZE", "DEQUANTIZE", CUSTOM_OP)]
    assert len(found.layers) >= 0.9 * len(computing)
    assert all(layer.block for layer in found.layers if layer.op in ("CONV_2D", "DEPTHWISE_CONV_2D"))
    added = [layer.added for layer in found.layers]
    assert added == sorted(added, reverse=True)


def test_a_spoilt_layer_is_named(tflite, samples, tmp_path):
    """Weights of one layer, set to one value in the int8 file: no other layer adds as much."""
    data = bytearray(tflite("int8", "uint8").read_bytes())
    model = model_file.parse(bytes(data))
    ops = (op for op in model.operators if op.name == "CONV_2D" and blocks.of_operator(op) == "block2_layer1")
    graph = schema.Model.GetRootAs(data, 0)
    weights = graph.Subgraphs(0).Tensors(next(ops).inputs[1].index)
    graph.Buffers(weights.Buffer()).DataAsNumpy()[:] = 3
    path = tmp_path / "spoilt.tflite"
    path.write_bytes(data)
    found = quantization_error.compare(tflite("float", "float"), path, samples)
    assert found.layers[0].block == "block2_layer1"
    assert quantization_error.worst_layers(found).startswith("block2_layer1 (CONV_2D")
