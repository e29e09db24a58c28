"""Export, then import: the same network again, from files of today's and the old converter."""

import dataclasses
import json

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from mobiledets_tf import architecture as architectures
from mobiledets_tf.cli import import_weights as command
from mobiledets_tf.compat import tf
from mobiledets_tf.errors import InputError
from mobiledets_tf.models import build_detector
from mobiledets_tf.weights import checkpoints, fitting, imported_weights, readers, tflite_file
from tflite_export.export import convert, evaluate
from tflite_export.tflite import model_file
from tflite_export.tflite.suppression import Suppression

SIZE, CLASSES, MULTIPLIER = 96, 3, 0.25


def load(account):
    target = account.target
    network = build_detector(
        target.architecture, target.num_classes, target.image_size, target.depth_multiplier
    )
    imported_weights.assign(account, {weight.name: weight for weight in network.weights})
    return network


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(-1, 1, (1, SIZE, SIZE, 3)).astype(np.float32)


def differences(one, other, image) -> list[float]:
    """Largest difference of boxes and logits, in parts of the outputs' standard deviation."""
    outputs = zip(one(image, training=False), other(image, training=False), strict=True)
    return [float(np.abs(a - b).max() / np.std(a)) for a, b in outputs]


def toco_like(data: bytes, path):
    """The same file as the old converter would quantise it: uint8 weights, one scale a tensor."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    graph = model.subgraphs[0]
    convolutions = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) not in convolutions:
            continue
        tensor = graph.tensors[op.inputs[1]]
        values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
        low, high = min(values.min(), 0), max(values.max(), 0)
        scale = max((high - low) / 255, 1e-9)
        zero = int(round(-low / scale))
        quantised = np.clip(np.round(values / scale) + zero, 0, 255).astype(np.uint8)
        model.buffers[tensor.buffer].data = quantised
        tensor.type = schema.TensorType.UINT8
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def old_uint8(data: bytes, path):
    """An int8 file of one scale a tensor, with every int8 tensor as uint8: what the old converter wrote."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    graph = model.subgraphs[0]
    int8 = [tensor for tensor in graph.tensors if tensor.type == schema.TensorType.INT8]
    for tensor in int8:
        tensor.type = schema.TensorType.UINT8
        tensor.quantization.zeroPoint = [int(point) + 128 for point in tensor.quantization.zeroPoint]
    for index in {tensor.buffer for tensor in int8}:
        values = model.buffers[index].data
        if values is not None:
            model.buffers[index].data = np.asarray(values).astype(np.uint8) ^ 0x80
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_a_quantised_file_gives_its_own_outputs_again(
    kind, detector, anchors, calibration, tflite, pictures, tmp_path
):
    if kind == "int8":
        path = tflite("int8", "int8", "none")
    else:
        options = convert.Options("int8", "int8", "none", per_tensor=True)
        data = convert.convert(detector, anchors, options, calibration)
        path = old_uint8(data, tmp_path / "old.tflite")
        tensors = [t for op in model_file.read(path).operators for t in (*op.inputs, *op.outputs)]
        assert {t.dtype for t in tensors} == {"UINT8", "INT32"}
    account = tflite_file.read(path, architectures.load("edgetpu"), depth_multiplier=MULTIPLIER)
    network, file = load(account), evaluate.FileDetector(path, anchors, Suppression())
    normal = (tf.image.resize(pictures, (SIZE, SIZE)).numpy() / 127.5 - 1).astype(np.float32)
    given = [raw_outputs(file, image[np.newaxis]) for image in normal]
    ours, origin = (keras_outputs(model, normal) for model in (network, detector))
    for name, values in ours.items():
        theirs = np.concatenate([outputs[name] for outputs in given])
        apart = np.abs(values - theirs).mean()
        # What is left is the rounding of activations, large in a network of random weights.
        assert apart < 1.05 * np.abs(origin[name] - theirs).mean(), name
        assert apart < 0.7 * np.abs(values - theirs[::-1]).mean(), name  # Those of other images.


def keras_outputs(model, images) -> dict[str, np.ndarray]:
    """Outputs of a Keras detector under the names of a file's."""
    boxes, logits = model(images, training=False)
    return {"raw_boxes": boxes.numpy(), "class_scores": tf.sigmoid(logits).numpy()}


def raw_outputs(file: evaluate.FileDetector, image) -> dict[str, np.ndarray]:
    """Outputs of a file without post-processing, as float32."""
    file = file._run
    outputs = file._runner(**{evaluate.INPUT: file._as_input(image)})
    return {name: file._as_float(name, values) for name, values in outputs.items()}


@pytest.mark.slow
def test_a_float_file_gives_the_same_network(detector, tflite, image):
    account = tflite_file.read(
        tflite("float", "float"), architectures.load("edgetpu"), depth_multiplier=MULTIPLIER
    )
    assert (account.target.num_classes, account.target.image_size) == (CLASSES, (SIZE, SIZE))
    assert max(differences(detector, load(account), image)) < 1e-4
    # The network is found where none is given, and every constant of a convolution is taken.
    found = tflite_file.read(tflite("float", "float"), depth_multiplier=MULTIPLIER)
    assert found.target == account.target and len(account.weights) == 429


@pytest.mark.slow
def test_an_int8_file_gives_it_within_its_rounding(tflite, image):
    account = tflite_file.read(
        tflite("int8", "uint8"), architectures.load("edgetpu"), depth_multiplier=MULTIPLIER
    )
    exact = tflite_file.read(
        tflite("float", "float"), account.target.architecture, depth_multiplier=MULTIPLIER
    )
    assert account.weights.keys() == exact.weights.keys()
    for name, kernel in kernels(exact):
        if name.startswith("predictor"):
            continue  # The converter widens their scale where a bias would overflow int32.
        # Half a step of each channel: the last axis, or the third of a depthwise kernel.
        axes = (0, 1, 3) if "depthwise_kernel" in name else (0, 1, 2)
        step = np.abs(kernel).max(axis=axes, keepdims=True) / 127
        assert (np.abs(account.weights[name] - kernel) <= 0.51 * step + 1e-8).all(), name
    outputs = load(account)(image, training=False)
    assert all(np.isfinite(output).all() for output in outputs)


def kernels(account):
    return [(name, value) for name, value in account.weights.items() if "kernel" in name]


def test_a_file_of_the_old_converter(tflite, tmp_path):
    path = toco_like(tflite("float", "float").read_bytes(), tmp_path / "toco.tflite")
    account = tflite_file.read(path, architectures.load("edgetpu"), depth_multiplier=MULTIPLIER)
    exact = tflite_file.read(
        tflite("float", "float"), account.target.architecture, depth_multiplier=MULTIPLIER
    )
    for name, kernel in kernels(exact):
        # The zero point is rounded as well: up to one step.
        step = (max(kernel.max(), 0) - min(kernel.min(), 0)) / 255
        assert np.abs(account.weights[name] - kernel).max() <= 1.01 * step + 1e-8, name
    for name in ("stem_conv_bn/beta:0", "predictor3_box_conv/bias:0"):
        np.testing.assert_array_equal(account.weights[name], exact.weights[name])


def test_other_networks_and_damage(tflite, tmp_path):
    path = tflite("float", "float")
    with pytest.raises(InputError, match=r"stem_conv has kernel \(3, 3, 3, 32\).*\(3, 3, 3, 8\)"):
        tflite_file.read(path, architectures.load("edgetpu"))
    with pytest.raises(InputError, match="not 'dsp'"):
        tflite_file.read(path, architectures.load("dsp"), depth_multiplier=MULTIPLIER)
    data = path.read_bytes()
    for length in (0, 100, len(data) // 2):
        (tmp_path / "cut.tflite").write_bytes(data[:length])
        with pytest.raises(InputError):
            tflite_file.read(tmp_path / "cut.tflite")


def test_the_command(detector, tflite, tmp_path, image, capsys):
    out = tmp_path / "imported"
    flags = [f"--weights={tflite('float', 'float')}", f"--depth_multiplier={MULTIPLIER}", "--num_classes=5"]
    assert command.run(["mobiledets-import", *flags, f"--output_dir={out}"]) == 0
    text = capsys.readouterr().out
    assert "it has 3 classes, but the network has 5" in text and "edgetpu, 5 classes" in text
    account = json.loads((out / "import.json").read_text())
    assert account["folded_norm"] and account["fresh"]["predictor5_class_conv/bias:0"]
    assert account["use"].startswith("inference only") and "inference only" in text
    # A training from that folder recovers batch normalisation first, for any network.
    target = imported_weights.Target(architectures.load("edgetpu"), 2, (SIZE, SIZE), MULTIPLIER)
    for wanted in (target, dataclasses.replace(target, depth_multiplier=0.5)):
        read = readers.read_for(str(out), wanted)
        assert read.folded_norm and fitting.needs_images(read, wanted)
    network = build_detector(architectures.load("edgetpu"), 5, SIZE, MULTIPLIER)
    checkpoints.restore(network, out)
    # The boxes are those of the file; the classes are others.
    boxes = [model(image, training=False)[0] for model in (detector, network)]
    np.testing.assert_allclose(*boxes, atol=1e-4)
    # A second call writes over nothing; wrong input leaves nothing.
    assert command.run(["mobiledets-import", *flags, f"--output_dir={out}"]) == 2
    for wrong in ("none.tflite", str(tmp_path), __file__):
        assert command.run(["mobiledets-import", f"--weights={wrong}", f"--output_dir={tmp_path}/no"]) == 2
        assert not (tmp_path / "no").exists()
        assert capsys.readouterr().err.strip().splitlines()[-1].count("error") >= 1


@pytest.mark.slow
def test_the_command_recovers_batch_normalisation(detector, tflite, folder, tmp_path, image, capsys):
    """Inference stays what it was; training mode, which would have destroyed it, comes near."""
    flags = [f"--weights={tflite('float', 'float')}", f"--depth_multiplier={MULTIPLIER}"]
    flags += [f"--calibration_data={folder}", f"--output_dir={tmp_path / 'out'}"]
    assert command.run(["mobiledets-import", *flags]) == 0
    assert "batch normalisation recovered from 6 images" in capsys.readouterr().out
    account = json.loads((tmp_path / "out" / "import.json").read_text())
    assert not account["folded_norm"] and not account["fresh"] and account["use"] == "inference and training"
    network = build_detector(architectures.load("edgetpu"), CLASSES, SIZE, MULTIPLIER)
    checkpoints.restore(network, tmp_path / "out")
    assert max(differences(detector, network, image)) < 1e-4
    # Another network by the same command.
    flags[-1] = f"--output_dir={tmp_path / 'dsp'}"
    assert command.run(["mobiledets-import", "--architecture=dsp", *flags]) == 0
    account = json.loads((tmp_path / "dsp" / "import.json").read_text())
    assert account["architecture"] == "dsp" and account["remapped"]["stem_conv/kernel:0"]["how"] == "copied"
    assert not set(account["taken"]) & set(account["skipped"])
    assert command.run(["mobiledets-import", *flags[:2], "--calibration_data=no", "--output_dir=no"]) == 2
