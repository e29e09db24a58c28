"""Reading .tflite files: sound, damaged, and none at all."""

import numpy as np
import pytest

from mobiledets_tf.errors import InputError
from tflite_export.tflite import blocks, model_file


def test_tensors_carry_type_shape_and_scale(tflite):
    model = model_file.read(tflite("int8", "uint8"))
    stem = next(op for op in model.operators if op.name == "CONV_2D")
    image, kernel, bias = stem.inputs
    assert (image.dtype, image.is_constant, image.is_dynamic) == ("INT8", False, False)
    assert kernel.is_constant
    assert kernel.shape == (8, 3, 3, 3)
    assert kernel.size == 8 * 3 * 3 * 3
    assert len(kernel.scales) == 8  # one a channel
    assert (bias.dtype, bias.shape) == ("INT32", (8,))
    assert stem.outputs[0].shape == (1, 48, 48, 8)


def test_constants_are_the_parameters(tflite, detector):
    """Kernels and folded biases in float, equal biases once; anchors and new shapes on top."""
    kernels = sum(w.shape.num_elements() for w in detector.weights if "kernel" in w.name)
    biases = sum(w.shape.num_elements() for w in detector.weights if w.name.endswith(("bias:0", "beta:0")))
    size = model_file.read(tflite("float", "float")).constants_size()
    assert 4 * kernels < size < 4 * (kernels + biases) + 8000


def test_float_model_lists_its_float_operators(tflite):
    model = model_file.read(tflite("float", "float"))
    assert model.summary()["float_operators"]["CONV_2D"] == 66


@pytest.mark.parametrize("content", [b"", b"short", b"just some text, not a model", b"\0" * 64])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a .tflite file"):
        model_file.read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read model"):
        model_file.read(tmp_path / "missing.tflite")


def test_damage_gives_an_input_error_or_a_model(tflite):
    """Whatever bytes change, nothing but InputError comes out."""
    data = tflite("int8", "uint8").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(60):
        damaged = bytearray(data[: rng.integers(100, len(data))] if trial % 2 else data)
        for position in rng.integers(8, len(damaged), 30):
            damaged[position] = rng.integers(256)
        try:
            model_file.parse(bytes(damaged))
        except InputError as error:
            refused += 1
            assert "damaged" in str(error)
    assert refused > 25


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("mobiledet_ssdlite/stem_conv_act/Relu6;mobiledet_ssdlite/stem_conv/Conv2D", "stem"),
        ("mobiledet_ssdlite/block3_layer12_expand/Conv2D", "block3_layer12"),
        ("model/quant_block2_layer1_project/Conv2D", "block2_layer1"),
        ("mobiledet_ssdlite/extra2_depthwise_bn/FusedBatchNormV3", "extra2"),
        ("mobiledet_ssdlite/predictor0_class_rows/Reshape", "predictor0_class"),
        ("mobiledet_ssdlite/class_logits/concat", "class_logits"),
        ("MobilenetV2/expanded_conv/system_conv/Conv2D", None),
        ("StatefulPartitionedCall:0", None),
    ],
)
def test_part_of_the_architecture_from_a_tensor_name(name, part):
    assert blocks.of_name(name) == part


def test_every_operation_of_the_network_is_placed(tflite, network):
    model = model_file.read(tflite("int8", "uint8"))
    kinds = ("CONV_2D", "ADD", "DEPTHWISE_CONV_2D")
    placed = {blocks.of_operator(op) for op in model.operators if op.name in kinds}
    layers = {name for name, _ in network.named_layers()}
    assert layers <= placed
    assert placed - layers == {f"extra{i}" for i in range(1, 5)} | {
        f"predictor{i}_{task}" for i in range(6) for task in ("box", "class")
    }
