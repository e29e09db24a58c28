"""Our detector inside the API's SSD: same losses, one copy of each weight, any network."""

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.detection import meta_architecture, network_settings, pipeline_config
from mobiledets_tf.detection.pipeline_config import Overrides
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import checkpoints

from object_detection.builders import model_builder  # isort: skip
from object_detection.meta_architectures import ssd_meta_arch  # isort: skip

ANCHORS, CLASSES, BATCH = 540, 3, 2


@pytest.fixture(scope="module")
def config():
    return pipeline_config.generate(Overrides("edgetpu", CLASSES, (160, 160), depth_multiplier=0.25)).model


@pytest.fixture(scope="module")
def model(config):
    return meta_architecture.build_detection_model(config, is_training=True)


@pytest.fixture(scope="module")
def raw():
    """Raw outputs to be judged: boxes [2, 540, 4] and logits [2, 540, 4]."""
    rng = np.random.default_rng(0)
    boxes = rng.normal(0, 1, (BATCH, ANCHORS, 4)).astype(np.float32)
    logits = rng.normal(-2, 2, (BATCH, ANCHORS, CLASSES + 1)).astype(np.float32)
    return tf.constant(boxes), tf.constant(logits)


def give_boxes(model) -> None:
    """One image with two boxes and one without any."""
    boxes = tf.constant([[0.1, 0.1, 0.5, 0.4], [0.3, 0.5, 0.9, 0.95]])
    model.provide_groundtruth(
        groundtruth_boxes_list=[boxes, tf.zeros((0, 4))],
        groundtruth_classes_list=[tf.one_hot([0, 2], CLASSES), tf.zeros((0, CLASSES))],
    )


def predictions(model, raw) -> dict:
    return {
        "preprocessed_inputs": tf.zeros((BATCH, 160, 160, 3)),
        "box_encodings": raw[0],
        "class_predictions_with_background": raw[1],
        "anchors": model.anchors.get(),
    }


def focal_loss(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """alpha 0.75, gamma 2 (Lin et al., 2017), written from the formula."""
    p = 1 / (1 + np.exp(-logits))
    return np.where(targets > 0, -0.75 * (1 - p) ** 2 * np.log(p), -0.25 * p**2 * np.log(1 - p))


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return shared / (areas - shared)


def test_losses_are_those_of_the_stock_architecture(model, raw):
    """The subclass leaves loss and matching alone; the class loss is also computed by hand."""
    give_boxes(model)
    ours = model.loss(predictions(model, raw), None)
    stock = ssd_meta_arch.SSDMetaArch.loss(model, predictions(model, raw), None)
    for name in stock:
        assert float(ours[name]) == float(stock[name])
    targets = np.zeros((BATCH, ANCHORS, CLASSES + 1), np.float32)
    boxes = np.array([[0.1, 0.1, 0.5, 0.4], [0.3, 0.5, 0.9, 0.95]], np.float32)
    overlaps = np.stack([iou(box, model.anchors.get().numpy()) for box in boxes])
    best = np.where(overlaps.max(axis=0) >= 0.5, overlaps.argmax(axis=0), -1)
    best[overlaps.argmax(axis=1)] = [0, 1]  # every box gets its best anchor
    for anchor, box in enumerate(best):
        if box >= 0:
            targets[0, anchor, 1 + (0, 2)[box]] = 1
    expected = focal_loss(raw[1].numpy().astype(np.float64), targets).sum() / targets.sum()
    assert float(ours["Loss/classification_loss"]) == pytest.approx(expected, rel=1e-5)


def test_combined_suppression_gives_the_detections_of_the_stock_loop(config, model, raw):
    stock_config = type(config).FromString(config.SerializeToString())
    stock_config.ssd.post_processing.batch_non_max_suppression.use_combined_nms = False
    stock = meta_architecture.build_detection_model(stock_config, False, network=model.network)
    # Logits without ties, or the order among equals is free.
    shapes = tf.constant([[160, 160, 3]] * BATCH)
    ours, theirs = (m.postprocess(predictions(m, raw), shapes) for m in (model, stock))
    for key in ("detection_scores", "detection_classes", "detection_boxes"):
        np.testing.assert_allclose(ours[key], theirs[key], atol=1e-6)


def test_anchors_are_the_published_ones():
    config = pipeline_config.generate(Overrides("edgetpu", 1)).model
    anchors = meta_architecture.build_detection_model(config, False).anchors.get().numpy()
    assert anchors.shape == (2034, 4)
    # First cell of the 20x20 map: centre 1/40; side 0.1, then scale 0.2 at ratios 2 and 1/2.
    centre = (anchors[:3, :2] + anchors[:3, 2:]) / 2
    np.testing.assert_allclose(centre, 1 / 40, atol=1e-6)
    height, width = (anchors[:3, 2:] - anchors[:3, :2]).T
    np.testing.assert_allclose(height, [0.1, 0.2 / 2**0.5, 0.2 * 2**0.5], rtol=1e-5)
    np.testing.assert_allclose(width, [0.1, 0.2 * 2**0.5, 0.2 / 2**0.5], rtol=1e-5)


def test_l2_is_half_the_sum_of_squares_of_all_kernels(model):
    kernels = [w for w in model.network.weights if "kernel" in w.name]
    assert any("depthwise" in w.name for w in kernels)
    expected = 4e-5 * sum(np.square(w.numpy().astype(np.float64)).sum() for w in kernels) / 2
    assert float(tf.add_n(model.regularization_losses())) == pytest.approx(expected, rel=1e-5)


def test_preprocessing_maps_to_minus_one_and_one(model):
    image, _ = model.preprocess(tf.constant([0.0, 127.5, 255.0], shape=(1, 1, 3, 1)) * tf.ones((1, 1, 3, 3)))
    assert image.shape == (1, 160, 160, 3)
    assert float(tf.reduce_min(image)) == -1 and float(tf.reduce_max(image)) == 1


def test_variables_are_those_of_the_network_once(model):
    assert len(model.variables) == len(model.network.weights)
    trainable = {v.ref() for v in model.trainable_variables}
    assert trainable == {v.ref() for v in model.network.trainable_weights}


def test_training_mode_reaches_the_network(config, raw):
    calls = []

    def network(images, training):
        calls.append(training)
        return raw

    weight = tf.Variable(2.0, name="stem/kernel:0")
    model = meta_architecture.build_detection_model(config, True, network, {"stem/kernel:0": weight})
    images = tf.zeros((BATCH, 160, 160, 3))
    assert model.predict(images, None)["box_encodings"] is raw[0]
    model._is_training = False
    model.predict(images, None)
    assert calls == [True, False]
    # A search's weights: trained, regularised and saved under their names.
    assert [v is weight for v in model.trainable_variables] == [True]
    assert float(model.regularization_losses()[0]) == pytest.approx(4e-5 * 2)


def test_frozen_batch_norm_runs_in_inference_mode(config, raw):
    frozen = type(config).FromString(config.SerializeToString())
    frozen.ssd.freeze_batchnorm = True
    calls = []
    model = meta_architecture.build_detection_model(
        frozen, True, lambda images, training: calls.append(training) or raw, {}
    )
    model.predict(tf.zeros((BATCH, 160, 160, 3)), None)
    assert calls == [False]


def test_the_hook_serves_the_api_and_leaves_other_models_alone(config):
    meta_architecture.install()
    model = model_builder.build(config, is_training=True)
    assert isinstance(model, meta_architecture.MobileDetMetaArch)
    other = type(config).FromString(config.SerializeToString())
    other.ssd.feature_extractor.type = "ssd_mobilenet_v2_keras"
    stock = model_builder.build(other, is_training=False)
    assert type(stock) is ssd_meta_arch.SSDMetaArch
    assert model_builder.ssd_meta_arch is ssd_meta_arch


def test_architecture_files_build_the_same_network(config, model, tmp_path):
    from mobiledets_tf import architecture

    architecture.save(architecture.load("edgetpu"), tmp_path / "architecture.json")
    by_file = type(config).FromString(config.SerializeToString())
    by_file.ssd.feature_extractor.type = network_settings.extractor_type(str(tmp_path / "architecture.json"))
    built = model_builder.build(by_file, is_training=False)
    assert [(w.name, w.shape) for w in built.network.weights] == [
        (w.name, w.shape) for w in model.network.weights
    ]


def test_checkpoint_of_the_api_restores_identical_outputs(config, model, tmp_path):
    """What training saves, a flat detector reads: names, all 429 weights, outputs."""
    images = tf.random.stateless_uniform((1, 160, 160, 3), (1, 2), -1, 1)
    for weight in model.network.weights:
        if "moving_variance" in weight.name:  # of small kernels: outputs that are not all bias
            weight.assign(weight * 0.01)
    optimizer = tf.keras.optimizers.legacy.SGD(0.1, momentum=0.9)
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.trainable_variables])
    step = tf.Variable(17, dtype=tf.int64)
    saved = tf.train.Checkpoint(step=step, model=model, optimizer=optimizer).save(str(tmp_path / "ckpt"))
    assert checkpoints.step(saved) == 17
    assert set(checkpoints.shapes(saved)) == {w.name for w in model.network.weights}
    fresh = meta_architecture.build_network(model.settings)
    before = fresh(images, training=False)[1].numpy()
    assert checkpoints.restore(fresh, tmp_path) == saved
    outputs = (network(images, training=False) for network in (model.network, fresh))
    for ours, restored in zip(*outputs, strict=True):
        np.testing.assert_array_equal(ours, restored)
    assert not np.array_equal(before, restored)


def test_checkpoint_of_another_network_is_refused_whole(config, model, tmp_path):
    saved = checkpoints.save(model.named_weights, tmp_path)
    other = pipeline_config.generate(Overrides("edgetpu", CLASSES, (160, 160), depth_multiplier=0.5))
    network = meta_architecture.build_network(network_settings.read(other.model.ssd))
    before = network.weights[0].numpy()
    with pytest.raises(InputError) as caught:
        checkpoints.restore(network, saved)
    message = str(caught.value)
    assert "stem_conv/kernel:0 is (3, 3, 3, 8) in the checkpoint and (3, 3, 3, 16) in the network" in message
    assert "more" in message and len(message) < 1000
    np.testing.assert_array_equal(before, network.weights[0].numpy())


def test_missing_and_left_over_weights_are_named(model, tmp_path):
    names = list(model.named_weights)
    without = {name: model.named_weights[name] for name in names[1:]}
    saved = checkpoints.save(without, tmp_path / "a")
    with pytest.raises(InputError, match=f"{names[0]} .* is missing from the checkpoint"):
        checkpoints.restore(model.network, saved)
    more = dict(model.named_weights) | {"other/kernel:0": tf.Variable(1.0)}
    saved = checkpoints.save(more, tmp_path / "b")
    with pytest.raises(InputError, match="other/kernel:0 .* is not in the network"):
        checkpoints.restore(model.network, saved)


def test_names_with_dots_and_slashes_survive(tmp_path):
    names = {"a.b/c.S/kernel:0": tf.Variable([1.0]), "..//x": tf.Variable([2.0])}
    assert set(checkpoints.shapes(checkpoints.save(names, tmp_path))) == set(names)


def test_damaged_and_foreign_checkpoints(model, tmp_path):
    saved = checkpoints.save(model.named_weights, tmp_path / "damaged")
    data = tmp_path / "damaged" / "ckpt-1.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    foreign = tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "foreign" / "ckpt"))
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "ckpt.index").write_bytes(b"no checkpoint")
    for path, message in (
        (saved, "is damaged"),
        (foreign, "contains no detector of this project"),
        (tmp_path / "index" / "ckpt", "cannot be read"),
        (tmp_path / "nothing", "does not exist"),
        (tmp_path, "contains no checkpoint"),
    ):
        with pytest.raises(InputError, match=message):
            checkpoints.restore(model.network, path)


def test_fine_tuning_leaves_the_predictors_out(model):
    kinds = {
        kind: set(model.restore_from_objects(kind)["model"].named_weights)
        for kind in ("full", "detection", "classification")
    }
    assert kinds["full"] == set(model.named_weights)
    assert kinds["full"] - kinds["detection"] == {n for n in kinds["full"] if n.startswith("predictor")}
    assert kinds["detection"] - kinds["classification"] == {n for n in kinds["full"] if n.startswith("extra")}
    with pytest.raises(ValueError, match="allowed: full"):
        model.restore_from_objects("everything")
