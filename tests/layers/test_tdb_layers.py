"""One battery over every layer of the TDB space: what any Keras layer owes its user."""

import numpy as np
import pytest

from mobiledets_tf import layers
from mobiledets_tf.architecture import specs
from mobiledets_tf.compat import keras, tf

IN_CHANNELS = 16
CASES = {
    "stem": (layers.ConvBNActivation, {"filters": 24, "strides": 2}),
    "stem, hard_swish": (layers.ConvBNActivation, {"filters": 24, "activation": "hard_swish"}),
    "ibn": (layers.InvertedBottleneck, {"filters": 24, "kernel_size": 5, "strides": 2, "expansion": 8}),
    "ibn, residual": (layers.InvertedBottleneck, {"filters": 16, "residual": True}),
    "ibn, squeeze-excite": (
        layers.InvertedBottleneck,
        {"filters": 16, "residual": True, "activation": "hard_swish", "se_ratio": 0.25},
    ),
    "no expansion": (layers.InvertedBottleneckNoExpansion, {"filters": 8}),
    "no expansion, squeeze-excite": (
        layers.InvertedBottleneckNoExpansion,
        {"filters": 8, "activation": "hard_swish", "se_ratio": 0.25},
    ),
    "fused": (
        layers.FusedInvertedBottleneck,
        {"filters": 24, "kernel_size": 5, "strides": 2, "expansion": 8},
    ),
    "fused, residual": (layers.FusedInvertedBottleneck, {"filters": 16, "residual": True, "bn_epsilon": 0.1}),
    "tucker": (layers.Tucker, {"filters": 24, "strides": 2, "in_ratio": 0.75, "out_ratio": 0.25}),
    "tucker, residual": (layers.Tucker, {"filters": 16, "residual": True}),
    "squeeze-excite": (layers.SqueezeExcite, {"se_ratio": 0.5}),
}
TDB_CASES = [name for name, (cls, _) in CASES.items() if issubclass(cls, layers.TDBLayer)]


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(7)


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(params=TDB_CASES)
def tdb_case(request):
    return CASES[request.param]


def _inputs(batch=2, height=9, width=6):
    return tf.random.normal((batch, height, width, IN_CHANNELS))


def _make(case, **kwargs):
    cls, config = case
    return cls(**config, **kwargs)


def _randomise(weights):
    """Non-trivial values everywhere; variances stay positive."""
    for weight in weights:
        shape = weight.shape
        if "variance" in weight.name or "gamma" in weight.name:
            weight.assign(tf.random.uniform(shape, 0.5, 1.5))
        elif "kernel" in weight.name:
            weight.assign(weight + tf.random.normal(shape, stddev=0.02))
        else:
            weight.assign(tf.random.normal(shape, stddev=0.5))


def _difference(a, b) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def test_gradients_equal_those_in_float64(case):
    # oneDNN has no kernels for float64, so TensorFlow's own compute the gradients to compare with.
    gradients = {}
    inputs, weights = _inputs().numpy(), None
    for dtype in ("float32", "float64"):
        layer = _make(case, dtype=dtype)
        x = tf.constant(inputs, dtype)
        layer(x)
        if weights is None:
            _randomise(layer.weights)
            weights = layer.get_weights()
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            # A plain mean would have no gradient behind a normalisation.
            loss = tf.reduce_mean(y * tf.cast(tf.reshape(tf.range(tf.size(y)), y.shape) % 7 - 3, dtype))
        gradients[dtype] = tape.gradient(loss, [x, *layer.trainable_weights])
    for single, double in zip(*gradients.values(), strict=True):
        assert _difference(single, double) < 1e-5 * max(np.abs(double).max(), 1e-3)


def test_every_spec_has_its_layer_in_the_battery():
    assert set(layers.registry.LAYERS) == set(specs.LAYER_SPECS.values())
    assert set(layers.registry.LAYERS.values()) == {CASES[name][0] for name in TDB_CASES}


def test_output_shape_and_dtype(case):
    layer, config = _make(case), case[1]
    strides = config.get("strides", 1)
    expected = (2, -(-9 // strides), -(-6 // strides), config.get("filters", IN_CHANNELS))
    outputs = layer(_inputs())
    assert outputs.shape == expected
    assert outputs.dtype == tf.float32
    assert layer.compute_output_shape((None, 9, 6, IN_CHANNELS)).as_list() == [None, *expected[1:]]


def test_the_shape_may_be_unknown_in_advance(case):
    layer = _make(case)
    image = keras.Input((None, None, IN_CHANNELS))
    model = keras.Model(image, layer(image))
    for size in ((9, 6), (5, 12)):
        x = _inputs(1, *size)
        assert _difference(model(x), layer(x)) == 0


@pytest.mark.parametrize("dtype", ["float64", "float16", "mixed_bfloat16"])
def test_dtype_reaches_the_inner_layers(case, dtype):
    layer = _make(case, dtype=dtype)
    outputs = layer(_inputs())
    policy = keras.mixed_precision.Policy(dtype)
    assert outputs.dtype == policy.compute_dtype
    kernels = [weight for weight in layer.weights if "kernel" in weight.name]
    assert {weight.dtype for weight in kernels} == {tf.as_dtype(policy.variable_dtype)}
    assert np.isfinite(tf.cast(outputs, tf.float32)).all()


def test_config_round_trip(case):
    layer = _make(case, name="it", trainable=False)
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    assert {key: config[key] for key in case[1]} == case[1]
    assert (config["name"], config["trainable"]) == ("it", False)
    packed = keras.utils.serialize_keras_object(layer)
    assert packed["registered_name"] == f"mobiledets>{type(layer).__name__}"
    assert keras.utils.deserialize_keras_object(packed).get_config() == config


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_model_save_and_load(case, suffix, tmp_path):
    image = keras.Input((9, 6, IN_CHANNELS))
    model = keras.Model(image, _make(case)(image))
    _randomise(model.weights)
    model.save(tmp_path / f"model{suffix}")
    loaded = keras.models.load_model(tmp_path / f"model{suffix}")
    assert type(loaded.layers[1]) is case[0]
    x = _inputs()
    assert _difference(loaded(x), model(x)) == 0


def test_checkpoint_round_trip(case, tmp_path):
    first, second, x = _make(case), _make(case), _inputs()
    first(x), second(x)
    _randomise(first.weights)
    assert _difference(first(x), second(x)) > 1e-3
    path = tf.train.Checkpoint(layer=first).save(str(tmp_path / "ckpt"))
    tf.train.Checkpoint(layer=second).restore(path).assert_consumed()
    assert _difference(first(x), second(x)) == 0


def test_checkpoint_restores_a_layer_that_is_built_later(case, tmp_path):
    first, second, x = _make(case), _make(case), _inputs()
    first(x)
    _randomise(first.weights)
    path = tf.train.Checkpoint(layer=first).save(str(tmp_path / "ckpt"))
    status = tf.train.Checkpoint(layer=second).restore(path)
    assert _difference(first(x), second(x)) == 0
    status.assert_consumed()


def test_a_training_step_updates_every_weight(case):
    layer, x = _make(case), _inputs()
    layer(x)
    _randomise(layer.weights)
    before = [weight.numpy() for weight in layer.weights]
    with tf.GradientTape() as tape:
        outputs = layer(x, training=True) if isinstance(layer, layers.TDBLayer) else layer(x)
        loss = tf.reduce_mean(outputs * tf.random.normal(outputs.shape))
    gradients = tape.gradient(loss, layer.trainable_weights)
    assert all(gradient is not None for gradient in gradients)
    keras.optimizers.SGD(10.0).apply_gradients(zip(gradients, layer.trainable_weights, strict=True))
    unmoved = [w.name for w, old in zip(layer.weights, before, strict=True) if _difference(w, old) == 0]
    assert unmoved == []


def test_inference_moves_no_statistics(tdb_case):
    layer, x = _make(tdb_case), _inputs()
    layer(x)
    before = [weight.numpy() for weight in layer.weights]
    layer(x, training=False)
    assert all(_difference(w, old) == 0 for w, old in zip(layer.weights, before, strict=True))


@pytest.mark.parametrize("when", ["before it is built", "after it is built"])
def test_a_frozen_layer_moves_nothing(tdb_case, when):
    layer, x = _make(tdb_case, trainable=when != "before it is built"), _inputs()
    layer(x)
    layer.trainable = False
    before = [weight.numpy() for weight in layer.weights]
    layer(x, training=True)
    assert layer.trainable_weights == []
    assert all(_difference(w, old) == 0 for w, old in zip(layer.weights, before, strict=True))
    layer.trainable = True
    assert len(layer.trainable_weights) == len(before) - _count(layer.weights, "moving_")


@pytest.mark.parametrize("training", [False, True])
def test_flat_and_composite_agree(tdb_case, training):
    """The functional graph of plain layers gives the composite layer's numbers and statistics."""
    composite, x = _make(tdb_case, name="it"), _inputs()
    composite(x)
    image = keras.Input(x.shape[1:])
    flat = keras.Model(image, _make(tdb_case, name="it").flat(image))
    assert not any(isinstance(layer, layers.TDBLayer) for layer in flat.layers)
    plain = {weight.name: weight for weight in flat.weights}
    ours = {weight.name.removeprefix("it/"): weight for weight in composite.weights}
    assert plain.keys() == ours.keys()
    _randomise(composite.weights)
    for name, weight in ours.items():
        plain[name].assign(weight)
    before = {name: weight.numpy() for name, weight in plain.items()}
    assert _difference(flat(x, training=training), composite(x, training=training)) < 1e-6
    for name, weight in ours.items():
        assert _difference(plain[name], weight) < 1e-6, name
        assert (_difference(weight, before[name]) > 0) == (training and "moving_" in name), name


def test_batch_norm_settings(tdb_case):
    image = keras.Input((9, 6, IN_CHANNELS))
    cls, config = tdb_case
    norm = {"bn_momentum": 0.9, "bn_epsilon": 0.02}
    for settings, expected in (({}, (0.99, config.get("bn_epsilon", 0.01))), (norm, (0.9, 0.02))):
        model = keras.Model(image, cls(**config | settings).flat(image))
        norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        assert norms
        for layer in norms:
            assert (layer.momentum, layer.epsilon, layer.center, layer.scale) == (*expected, True, True)


def test_the_last_projection_is_linear():
    for name in TDB_CASES:
        if not name.startswith("stem"):
            image = keras.Input((9, 6, IN_CHANNELS))
            flat = keras.Model(image, _make(CASES[name], name="it").flat(image))
            last = [layer.name for layer in flat.layers if not isinstance(layer, keras.layers.Add)][-1]
            assert last == "it_project_bn", name


def test_residual_adds_the_input():
    layer, x = layers.InvertedBottleneck(16, residual=True, name="it"), _inputs()
    layer(x)
    next(w for w in layer.weights if "project_bn/gamma" in w.name).assign(tf.zeros(16))
    assert _difference(layer(x), x) == 0


def test_squeeze_excite_by_hand():
    layer = layers.SqueezeExcite(se_ratio=0.5, activation="relu6")
    x = _inputs()
    layer(x)
    _randomise(layer.weights)
    reduce, reduce_bias, expand, expand_bias = (weight.numpy() for weight in layer.weights)
    hidden = np.clip(x.numpy().mean(axis=(1, 2)) @ reduce[0, 0] + reduce_bias, 0, 6)
    gate = 1 / (1 + np.exp(-(hidden @ expand[0, 0] + expand_bias)))
    assert _difference(layer(x), x.numpy() * gate[:, None, None, :]) < 1e-6


def test_layer_for_gives_the_spec_back():
    tucker = specs.TuckerSpec(24, 5, 2, False, 0.5, 0.75)
    for spec in (specs.ConvSpec(8), tucker, specs.InvertedBottleneckSpec(8)):
        layer = layers.layer_for(spec, "it", "hard_swish", 0.25, layers.HEAD_NORM)
        assert (layer.spec, layer.name, layer.activation, layer.se_ratio) == (spec, "it", "hard_swish", 0.25)
        assert layer.norm == layers.BatchNorm(0.97, 0.001)


def test_wrong_settings_are_refused_when_a_layer_is_made():
    for make in (
        lambda: layers.InvertedBottleneck(16, expansion=1),
        lambda: layers.FusedInvertedBottleneck(16, strides=2, residual=True),
        lambda: layers.Tucker(16, in_ratio=0.0),
        lambda: layers.ConvBNActivation(0),
    ):
        with pytest.raises(ValueError, match="allowed|needs strides 1"):
            make()


def _count(weights, word: str) -> int:
    return sum(word in weight.name for weight in weights)
