"""The quantised detector: the float one's names, nearly its outputs, one scale before a concat."""

from collections import Counter

import numpy as np
import pytest

from mobiledets_tf import architecture, search_space
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.models import build_detector
from mobiledets_tf.models.quantized import quantize_detector

SIZE = 96


def fresh(name: str) -> keras.Model:
    """A small detector of a published network, or of one drawn from a search space."""
    keras.utils.set_random_seed(3)
    if name in architecture.PUBLISHED:
        found = architecture.load(name)
    else:
        space = search_space.get_space(name)
        found = search_space.decode(space, search_space.sample(space, np.random.default_rng(5)))
    return build_detector(found, 3, SIZE, 0.25)


def network(name: str) -> keras.Model:
    """The same with statistics of BN, and biases, that are not the fresh ones."""
    detector = fresh(name)
    for _ in range(3):
        detector(images(1), training=True)
    for weight in detector.weights:
        if weight.name.endswith("bias:0"):  # The converter gives equal biases the wrong scales.
            weight.assign_add(tf.random.normal(weight.shape, stddev=0.1))
    return detector


def images(seed: int, count: int = 4):
    return np.random.default_rng(seed).uniform(-1, 1, (count, SIZE, SIZE, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*architecture.PUBLISHED, "ibn_fused_tucker"])
def test_names_shapes_and_values_are_those_of_the_float_detector(name):
    detector = fresh(name)
    quantized = quantize_detector(detector)
    given = {weight.name: weight for weight in detector.weights}
    assert quantized.named_weights.keys() == given.keys()
    for weight_name, weight in quantized.named_weights.items():
        np.testing.assert_array_equal(weight.numpy(), given[weight_name].numpy(), err_msg=weight_name)
    # Every variable that training changes is one of them, and none is left out.
    trainable = {weight.name for weight in quantized.network.trainable_weights}
    assert trainable == {weight.name for weight in detector.trainable_weights}
    ends = Counter(range_name.rsplit("_", 1)[1] for range_name in quantized.ranges)
    assert ends["min:0"] == ends["max:0"] == len(quantized.ranges) / 2 > 50


@pytest.mark.slow
def test_the_first_batch_sets_the_ranges_and_rounding_stays_near_the_float_outputs():
    detector = network("edgetpu")
    quantized = quantize_detector(detector)
    low, high = (quantized.ranges[f"quant_stem_conv_act/output_{end}:0"] for end in ("min", "max"))
    assert low.numpy() == high.numpy() == 0
    x = images(1)
    quantized.network(x, training=True)
    assert low.numpy() == 0 and 0.1 < high.numpy() <= 6
    for name, weight in quantized.named_weights.items():  # Training moved the statistics of BN.
        weight.assign(next(w for w in detector.weights if w.name == name))
    before = {name: value.numpy() for name, value in quantized.ranges.items()}
    for given, exact in zip(quantized.network(x, training=False), detector(x, training=False), strict=True):
        spread = float(tf.math.reduce_std(exact))
        assert 0 < float(tf.reduce_mean(tf.abs(given - exact))) < 0.5 * spread
    assert all(value.numpy() == before[name] for name, value in quantized.ranges.items())


@pytest.mark.slow
def test_every_kernel_gets_a_gradient():
    quantized = quantize_detector(network("cpu"))
    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_sum(out**2) for out in quantized.network(images(2), training=True)])
    variables = quantized.network.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert gradient is not None and np.isfinite(gradient.numpy()).all(), variable.name


@pytest.mark.slow
def test_the_file_is_all_int8_without_a_requantisation_and_agrees_with_the_simulation():
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    quantized = quantize_detector(network("edgetpu"))
    for seed in range(2):
        quantized.network(images(seed), training=True)
    detect = tf.function(lambda image: quantized.network(image, training=False))
    concrete = detect.get_concrete_function(tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32, "image"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], quantized.network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content = converter.convert()
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    counted = Counter(op["op_name"] for op in interpreter._get_ops_details())
    assert counted == {"CONV_2D": 66, "DEPTHWISE_CONV_2D": 27, "ADD": 15, "RESHAPE": 12, "CONCATENATION": 2}
    given = interpreter.get_input_details()[0]
    scale, zero = given["quantization"]
    assert scale == pytest.approx(2 / 255) and zero in (-1, 0)
    image = images(7, 1)
    interpreter.set_tensor(given["index"], np.clip(np.round(image / scale + zero), -128, 127).astype(np.int8))
    interpreter.invoke()
    simulated = detect(image)
    outputs = [_real(interpreter, detail) for detail in interpreter.get_output_details()]
    for tensor in simulated:
        error, step = min(
            (np.abs(out - tensor.numpy()).max(), step) for out, step in outputs if out.shape == tensor.shape
        )
        assert error <= 12 * step


def _real(interpreter, detail):
    scale, zero = detail["quantization"]
    return (interpreter.get_tensor(detail["index"]).astype(np.float32) - zero) * scale, scale
