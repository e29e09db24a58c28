"""TF1 checkpoints against the TF1 network itself: the slim extractor and box predictor."""

import json

import numpy as np
import pytest

from mobiledets_tf import architecture, compat
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.detection import pipeline_config
from mobiledets_tf.detection.pipeline_config import Overrides
from mobiledets_tf.errors import InputError
from mobiledets_tf.models import build_detector
from mobiledets_tf.weights import checkpoints, imported_weights, tf1_checkpoint

SIZE, CLASSES, MULTIPLIER = 96, 2, 0.25
EXTRACTORS = {"cpu": "CPU", "edgetpu": "EdgeTPU", "dsp": "DSP", "gpu": "GPU"}
TOLERANCE = 1e-4


def random_value(name: str, shape, rng) -> np.ndarray:
    """A value of ordinary size for a variable, so that signals neither vanish nor grow."""
    if name.endswith("moving_variance"):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith("gamma"):
        return rng.uniform(0.4, 1.0, shape)
    if name.endswith("weights"):
        fan_in = np.prod(shape[:2]) if "depthwise" in name else np.prod(shape[:3])
        return rng.normal(0, (2 / fan_in) ** 0.5, shape)
    return rng.normal(0, 0.3, shape)


def slim_outputs(name: str, image: np.ndarray, path: str) -> list[np.ndarray]:
    """Runs the TF1 extractor and predictor with random weights; saves them as a TF1 checkpoint.

    Returns:
      The six maps, then boxes [1, anchors, 4] and logits [1, anchors, classes + 1].
    """
    compat.enable_slim_oracle()
    from object_detection.builders import hyperparams_builder
    from object_detection.models import ssd_mobiledet_feature_extractor as slim_extractors
    from object_detection.predictors import convolutional_box_predictor
    from object_detection.predictors.heads import box_head, class_head

    ssd = pipeline_config.generate(Overrides("edgetpu", CLASSES)).model.ssd
    tf1 = tf.compat.v1
    with tf.Graph().as_default():
        extractor = getattr(slim_extractors, f"SSDMobileDet{EXTRACTORS[name]}FeatureExtractor")(
            is_training=False,
            depth_multiplier=MULTIPLIER,
            min_depth=16,
            pad_to_multiple=1,
            conv_hyperparams_fn=hyperparams_builder.build(ssd.feature_extractor.conv_hyperparams, False),
            use_depthwise=True,
        )
        with tf1.variable_scope("FeatureExtractor"):
            maps = extractor.extract_features(tf.constant(image))
        predictor = convolutional_box_predictor.ConvolutionalBoxPredictor(
            is_training=False,
            num_classes=CLASSES,
            box_prediction_head=box_head.ConvolutionalBoxHead(False, 4, 3, use_depthwise=True),
            class_prediction_head=class_head.ConvolutionalClassHead(
                False, CLASSES + 1, False, 1.0, 3, use_depthwise=True
            ),
            other_heads={},
            min_depth=0,
            max_depth=0,
            num_layers_before_predictor=0,
            conv_hyperparams_fn=hyperparams_builder.build(
                ssd.box_predictor.convolutional_box_predictor.conv_hyperparams, False
            ),
        )
        predictions = predictor.predict(maps, [3, 6, 6, 6, 6, 6])
        boxes = tf.squeeze(tf.concat(predictions["box_encodings"], axis=1), axis=2)
        logits = tf.concat(predictions["class_predictions_with_background"], axis=1)
        tf1.train.create_global_step()
        variables, rng = tf1.global_variables(), np.random.default_rng(4)
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            for variable in variables:
                if variable.dtype.base_dtype.is_floating:
                    variable.load(random_value(variable.op.name, variable.shape.as_list(), rng), session)
            tf1.train.Saver(variables).save(session, path, write_meta_graph=False)
            return session.run([*maps, boxes, logits])


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(9).uniform(-1, 1, (1, SIZE, SIZE, 3)).astype(np.float32)


def target(name: str, num_classes: int = CLASSES) -> imported_weights.Target:
    return imported_weights.Target(architecture.load(name), num_classes, (SIZE, SIZE), MULTIPLIER)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTRACTORS)
def test_the_network_of_a_tf1_checkpoint_gives_the_outputs_of_tf1(name, image, tmp_path):
    expected = slim_outputs(name, image, str(tmp_path / "model.ckpt"))
    account = tf1_checkpoint.read(tmp_path, image_size=(SIZE, SIZE), depth_multiplier=MULTIPLIER)
    assert account.target == target(name)
    imported_weights.write(account, tmp_path / "imported")
    network = build_detector(architecture.load(name), CLASSES, SIZE, MULTIPLIER)
    checkpoints.restore(network, tmp_path / "imported")
    outputs = network(image, training=False)
    for ours, theirs in zip(outputs, expected[-2:], strict=True):
        assert float(np.std(theirs)) > 0.1
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    # Six maps: the inputs of the box predictors' depthwise convolutions.
    maps = keras.Model(
        network.input, [network.get_layer(f"predictor{i}_box_depthwise").input for i in range(6)]
    )(image)
    for ours, theirs in zip(maps, expected[:6], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    assert account.skipped == {"global_step": "step of the previous training"} and not account.fresh


@pytest.fixture(scope="module")
def listed(shared, tmp_path_factory):
    """A checkpoint with all the names of a quantisation-aware TF1 training, at full size."""
    variables = json.loads((shared / "reference" / "tf1_checkpoint_variables.json").read_text())["variables"]
    path = str(tmp_path_factory.mktemp("listed") / "model.ckpt-400000")
    rng, tf1 = np.random.default_rng(2), tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        made = []
        for name, shape in variables.items():
            value = random_value(name, shape, rng)
            value = np.int64(7) if name == "global_step" else np.asarray(value, np.float32)
            made.append(tf1.Variable(value, name=name))
        made.append(
            tf1.Variable(
                np.zeros((3, 3, 3, 32), np.float32),
                name="FeatureExtractor/MobileDetEdgeTPU/Conv/weights/Momentum",
            )
        )
        session.run(tf1.variables_initializer(made))
        tf1.train.Saver(made).save(session, path, write_meta_graph=False)
    return path, variables


def test_every_variable_is_accounted_for(listed):
    path, variables = listed
    account = tf1_checkpoint.read(path + ".index")
    assert (account.target.architecture.name, account.target.num_classes) == ("edgetpu", 2)
    assert account.taken.keys() | account.skipped.keys() == variables.keys() | {
        "FeatureExtractor/MobileDetEdgeTPU/Conv/weights/Momentum"
    }
    assert account.taken.keys() == {n for n in variables if "quant" not in n and n != "global_step"}
    network = build_detector(architecture.load("edgetpu"), 2)
    assert account.weights.keys() == {weight.name for weight in network.weights}
    assert sum("quantisation-aware" in why for why in account.skipped.values()) == 834
    assert "834" in "\n".join(account.summary()) or "833 more" in "\n".join(account.summary())


def test_another_class_count_leaves_the_class_heads_fresh(listed):
    account = tf1_checkpoint.read(listed[0], num_classes=5)
    names = {f"predictor{i}_class_conv/{part}:0" for i in range(6) for part in ("kernel", "bias")}
    assert account.fresh.keys() == names
    assert set(account.fresh.values()) == {"it has 2 classes, but the network has 5"}
    assert "predictor0_class_depthwise/depthwise_kernel:0" in account.weights
    assert "predictor0_box_conv/kernel:0" in account.weights


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"depth_multiplier": 0.5},
            r"Conv/weights has shape \(3, 3, 3, 32\), but stem_conv.*\(3, 3, 3, 16\)",
        ),
        ({"architecture": "cpu"}, "--architecture=cpu, but .* belongs to 'edgetpu'"),
    ],
)
def test_what_does_not_fit_names_both(listed, change, words):
    if "architecture" in change:
        change = {"architecture": architecture.load(change["architecture"])}
    with pytest.raises(InputError, match=words):
        tf1_checkpoint.read(listed[0], **change)


def test_other_checkpoints_are_refused(tmp_path):
    path = tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    with pytest.raises(InputError, match="not a MobileDet of the TF1 API"):
        tf1_checkpoint.read(path)
    with pytest.raises(InputError, match="does not exist"):
        tf1_checkpoint.read(tmp_path / "none.ckpt")


def test_half_of_a_checkpoint_is_named(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("global_step", initializer=1)
        session.run(variable.initializer)
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    next(tmp_path.glob("*.data-*")).unlink()
    with pytest.raises(InputError, match="lacks its data file 'model.ckpt.data-00000-of-00001'"):
        tf1_checkpoint.read(tmp_path / "model.ckpt")
