"""The whole detector: counts equal to the data's, names, shapes, settings, gradients."""

import collections
import functools
import json

import numpy as np
import pytest

from mobiledets_tf import architecture
from mobiledets_tf.architecture import summary
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.errors import InputError
from mobiledets_tf.models import build_backbone, build_detector

PLAIN_LAYERS = {
    "InputLayer",
    "Conv2D",
    "DepthwiseConv2D",
    "BatchNormalization",
    "ReLU",
    "Activation",
    "Add",
    "Multiply",
    "GlobalAveragePooling2D",
    "Reshape",
    "Concatenate",
}
PARAMS = {"cpu": 4_205_423, "edgetpu": 4_196_095, "dsp": 7_159_343, "gpu": 13_109_151}
# Classes, image size, multiplier.
VARIANTS = [
    ("cpu", 1, 65, 0.35),
    ("edgetpu", 10, 160, 0.5),
    ("dsp", 3, (96, 224), 0.75),
    ("gpu", 20, 129, 0.1),
]


@functools.cache
def _published(name):
    return build_detector(architecture.load(name), 90)


@functools.cache
def _small(name):
    keras.utils.set_random_seed(1)
    return build_detector(architecture.load(name), 3, 96, 0.25)


def _trainable(model) -> int:
    return sum(weight.shape.num_elements() for weight in model.trainable_weights)


def _madds(model) -> int:
    """Multiply-adds from the shapes of the Keras layers."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            kernel = layer.weights[0].shape.num_elements()
            total += kernel * np.prod(layer.output_shape[1:3])
    return total


def _check_counts(model, network, num_classes, size):
    ops = summary.detector_ops(network, num_classes, size)
    assert model.count_params() == summary.params(ops)
    assert _trainable(model) == summary.trainable_params(ops)
    assert _madds(model) == summary.madds(ops)


@pytest.mark.parametrize("name", PARAMS)
def test_published_detectors_have_the_published_parameters(name):
    model, network = _published(name), architecture.load(name)
    assert model.count_params() == PARAMS[name]
    _check_counts(model, network, 90, 320)
    assert [tuple(output.shape) for output in model.outputs] == [(None, 2034, 4), (None, 2034, 91)]


@pytest.mark.parametrize("name, num_classes, size, multiplier", VARIANTS)
def test_counts_equal_the_data(name, num_classes, size, multiplier):
    network = architecture.load(name)
    model = build_detector(network, num_classes, size, multiplier)
    _check_counts(model, network.scaled(multiplier), num_classes, size)
    anchors = architecture.num_anchors(network, size)
    assert [output.shape[1:] for output in model.outputs] == [(anchors, 4), (anchors, num_classes + 1)]
    image = np.zeros((2, *architecture.image_hw(size), 3), np.float32)
    boxes, logits = model(image)
    assert (boxes.shape, logits.shape) == ((2, anchors, 4), (2, anchors, num_classes + 1))
    assert boxes.dtype == logits.dtype == tf.float32
    assert np.isfinite(boxes).all() and np.isfinite(logits).all()


@pytest.mark.parametrize("seed", range(2))
def test_counts_of_random_networks(seed):
    network, num_classes, size = _random_network(np.random.default_rng(seed))
    _check_counts(build_detector(network, num_classes, size), network, num_classes, size)


@pytest.mark.parametrize("name", PARAMS)
def test_weights_of_the_data_order_and_their_names(name):
    """Names are unique, `layer/variable:0`, and every operation of the data has its convolution."""
    names = [weight.name for weight in _published(name).weights]
    assert len(set(names)) == len(names)
    assert all(name.count("/") == 1 and name.endswith(":0") for name in names)
    kernels = [n.split("/")[0] for n in names if n.split("/")[1] in ("kernel:0", "depthwise_kernel:0")]
    ops = summary.detector_ops(architecture.load(name))
    expected = [f"{placed.layer_name}_{placed.op.name}" for placed in ops if placed.op.name != "se"]
    assert sorted(k for k in kernels if "_se_" not in k) == sorted(expected)


def test_canonical_names_by_hand():
    names = {weight.name: tuple(weight.shape) for weight in _published("cpu").weights}
    for name, shape in {
        "stem_conv/kernel:0": (3, 3, 3, 16),
        "block1_layer1_depthwise/depthwise_kernel:0": (3, 3, 16, 1),
        "block1_layer1_se_reduce/kernel:0": (1, 1, 16, 8),
        "block4_layer1_expand_bn/moving_variance:0": (256,),
        "extra1_reduce/kernel:0": (1, 1, 144, 256),
        "extra4_conv_bn/gamma:0": (128,),
        "predictor0_box_conv/bias:0": (12,),
        "predictor5_class_conv/kernel:0": (1, 1, 128, 546),
    }.items():
        assert names[name] == shape


def test_names_are_the_same_however_many_models_there_are():
    again = build_detector(architecture.load("edgetpu"), 3, 96, 0.25)
    assert [w.name for w in again.weights] == [w.name for w in _small("edgetpu").weights]


def test_weight_shapes_are_those_of_a_tf1_checkpoint(shared):
    """A checkpoint of the TF1 detector, edgetpu with 2 classes, holds the same shapes, kind by kind."""
    path = shared / "reference" / "tf1_checkpoint_variables.json"
    kinds = {
        "weights": "kernel",
        "depthwise_weights": "depthwise_kernel",
        "biases": "bias",
        "gamma": "gamma",
        "beta": "beta",
        "moving_mean": "moving_mean",
        "moving_variance": "moving_variance",
    }
    theirs = collections.Counter(
        (kinds[name.split("/")[-1]], tuple(shape))
        for name, shape in json.loads(path.read_text(encoding="utf-8"))["variables"].items()
        if name.split("/")[-1] in kinds
    )
    model = build_detector(architecture.load("edgetpu"), 2)
    names_and_shapes = ((w.name.removesuffix(":0"), tuple(w.shape)) for w in model.weights)
    ours = collections.Counter((name.split("/")[1], shape) for name, shape in names_and_shapes)
    assert ours == theirs


@pytest.mark.parametrize("name", PARAMS)
def test_only_plain_layers_without_regularisers(name):
    model = _published(name)
    assert {type(layer).__name__ for layer in model.layers} <= PLAIN_LAYERS
    assert type(model).__name__ == "Functional"
    assert model.losses == []


def test_batch_norm_settings_of_backbone_and_head():
    settings = collections.defaultdict(set)
    for layer in _published("edgetpu").layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            is_head = layer.name.startswith(("extra", "predictor"))
            settings["head" if is_head else "backbone"].add((layer.momentum, layer.epsilon))
    assert settings == {"backbone": {(0.99, 0.01)}, "head": {(0.97, 0.001)}}


def test_initial_values_of_the_head():
    values = {w.name.removesuffix(":0"): w.numpy() for w in _published("gpu").weights}
    for i in range(6):
        assert np.unique(values[f"predictor{i}_class_conv/bias"]) == np.float32(-4.6)
        assert np.unique(values[f"predictor{i}_box_conv/bias"]) == 0
        assert values[f"predictor{i}_class_conv/kernel"].std() == pytest.approx(0.03, rel=0.02)
    # Truncated at two deviations, which narrows 0.03 to 0.0264.
    reduce = values["extra1_reduce/kernel"]
    assert reduce.std() == pytest.approx(0.03 * 0.8796, rel=0.02)
    assert np.abs(reduce).max() <= 0.06
    assert values["predictor2_box_depthwise/depthwise_kernel"].std() == pytest.approx(0.03, rel=0.05)
    a, b = (values[f"predictor{i}_class_conv/kernel"] for i in (3, 4))
    assert a.shape == b.shape and np.abs(a - b).max() > 0.01


def test_rows_run_over_maps_then_cells_then_anchors():
    """With zero kernels, a row shows the bias of its map, anchor and column."""
    model = build_detector(architecture.load("edgetpu"), 2, (65, 96), 0.1, (1, 2, 3, 1, 2, 3))
    for index, anchors in enumerate((1, 2, 3, 1, 2, 3)):
        for task, columns in (("box", 4), ("class", 3)):
            kernel, bias = model.get_layer(f"predictor{index}_{task}_conv").weights
            kernel.assign(tf.zeros_like(kernel))
            bias.assign(100.0 * index + tf.range(anchors * columns, dtype=tf.float32))
    outputs = model(np.ones((1, 65, 96, 3), np.float32))
    cells = (5 * 6, 3 * 3, 2 * 2, 1, 1, 1)
    for output, columns in zip(outputs, (4, 3), strict=True):
        rows = [
            100 * index + anchor * columns + np.arange(columns)
            for index, anchors in enumerate((1, 2, 3, 1, 2, 3))
            for _ in range(cells[index])
            for anchor in range(anchors)
        ]
        np.testing.assert_array_equal(output[0], np.array(rows, np.float32))


@pytest.mark.parametrize("name", ["cpu", "edgetpu"])  # Every kind of layer is in one of them.
def test_backward_reaches_every_weight(name):
    model = _small(name)
    rng = np.random.default_rng(2)
    images = rng.uniform(-1, 1, (4, 96, 96, 3)).astype(np.float32)
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = sum(tf.reduce_mean(o * rng.normal(size=o.shape).astype(np.float32)) for o in outputs)
    gradients = tape.gradient(loss, model.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.name
        assert np.isfinite(gradient).all(), weight.name
        assert np.abs(gradient).max() > 0, weight.name


def test_save_and_load(tmp_path):
    model = _small("cpu")  # It holds the activation that Keras does not know.
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [w.name for w in loaded.weights] == [w.name for w in model.weights]
    image = np.random.default_rng(3).uniform(-1, 1, (1, 96, 96, 3)).astype(np.float32)
    for a, b in zip(loaded(image), model(image), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "size, sides",
    [
        (320, [(160, 160), (80, 80), (40, 40), (20, 20), (10, 10)]),
        ((65, 200), [(33, 100), (17, 50), (9, 25), (5, 13), (3, 7)]),
    ],
)
def test_backbone_endpoints(size, sides):
    network = architecture.load("edgetpu")
    outputs = build_backbone(network, size, 0.25).output_shape
    channels = [network.scaled(0.25).blocks[block][-1].filters for block in (0, 1, 2, 4, 6)]
    expected = [(None, *side, c) for side, c in zip(sides, channels, strict=True)]
    assert outputs == dict(zip(("C1", "C2", "C3", "C4", "C5"), expected, strict=True))


def test_wrong_settings_are_refused_before_anything_is_built():
    network = architecture.load("edgetpu")
    for settings, words in (
        ({"image_size": 64}, "image size 64 does not fit six feature maps"),
        ({"image_size": (320, 32)}, "image size 32 does not fit"),
        ({"image_size": 320.0}, "image size 320.0"),
        ({"num_classes": 0}, "number of classes is 0"),
        ({"depth_multiplier": 0.0}, "depth multiplier is 0.0"),
        ({"anchors_per_location": (3, 6)}, "anchors per location"),
        ({"anchors_per_location": (3, 6, 6, 6, 6, 0)}, "anchors per location"),
    ):
        with pytest.raises(InputError, match=words):
            build_detector(network, **{"num_classes": 3} | settings)
    with pytest.raises(InputError, match="image size 64"):
        build_backbone(network, 64)


def _random_network(rng: np.random.Generator):
    """Any mix of ops, kernels, widths and residuals that the data admits, small."""
    widths = [int(w) for w in rng.integers(2, 40, 16)]

    def layer(strides: int, before: int, filters: int):
        op = rng.choice(["ibn", "fused", "tucker", "dwsep_no_expansion"])
        fields = {"op": str(op), "filters": filters, "kernel_size": int(rng.choice([1, 3, 5, 7]))}
        fields |= {"strides": strides, "residual": strides == 1 and before == filters}
        if op == "tucker":
            ratios = rng.uniform(0.05, 1, 2).tolist()
            return fields | {"in_ratio": ratios[0], "out_ratio": ratios[1]}
        return fields if op == "dwsep_no_expansion" else fields | {"expansion": int(rng.integers(2, 9))}

    blocks, before = [], widths[0]
    for strides, width in zip((1, 2, 2, 2, 1, 2, 1), widths[1:8], strict=True):
        block = [layer(strides, before, width)]
        block += [layer(1, width, width) for _ in range(int(rng.integers(0, 3)))]
        blocks.append(block)
        before = width
    data = architecture.to_dict(architecture.load("edgetpu")) | {
        "name": "random",
        "activation": str(rng.choice(["relu6", "hard_swish"])),
        "se_ratio": float(rng.uniform(0.1, 1)) if rng.random() < 0.7 else None,
        "stem": {"op": "conv", "filters": widths[0], "kernel_size": 3, "strides": 2, "residual": False},
        "blocks": blocks,
        "extra_filters": widths[8:12],
    }
    size = tuple(int(side) for side in rng.integers(65, 200, 2))
    return architecture.from_dict(data), int(rng.integers(1, 30)), size
