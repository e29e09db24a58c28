"""Crowds, limits and class names where data meet the Object Detection API."""

import dataclasses
import json

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.data import check, coco, convert, records, sample
from mobiledets_tf.detection import crowds, model_dir, pipeline_config, training_config
from mobiledets_tf.detection.pipeline_config import Overrides
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import own_checkpoint


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "data"
    sample.write_sample(folder, num_train=4, num_val=2, image_size=64, seed=2)
    return folder


def _converted(drawn, target, change=lambda value: None):
    folder = target / "data"
    for source in drawn.rglob("*.*"):
        path = folder / source.relative_to(drawn)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
    for split in ("train", "val"):
        path = folder / f"instances_{split}.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))
    convert.convert(check.check(coco.find_splits(folder)), target / "records")
    return str(target / "records")


def _job(data, folder, **changes):
    overrides = Overrides(architecture="edgetpu", image_size=(96, 96), depth_multiplier=0.25, steps=2)
    return training_config.Job(str(folder), train_data=data, overrides=overrides, **changes)


def _renamed(value):
    value["categories"][4]["name"] = "V"


def test_an_anchor_in_a_crowd_is_neither_object_nor_background():
    anchors = tf.constant([[0.1, 0.1, 0.2, 0.2], [0.6, 0.6, 0.7, 0.7], [0.45, 0.0, 0.55, 0.4]], tf.float32)
    boxes = tf.constant([[0.1, 0.1, 0.2, 0.2], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]], tf.float32)
    weights = tf.constant([1.0, 0.0, 0.0])  # an object, a crowd, padding
    assert crowds.are_inside(anchors, boxes, weights).numpy().tolist() == [True, False, True]
    match = tf.constant([[0, -1, -1]])
    found = crowds.class_weights(tf.ones([1, 3, 2]), match, anchors, [boxes], [weights])
    # The object inside the crowd stays one; the rest of the crowd is left out.
    assert found.numpy()[0, :, 0].tolist() == [1.0, 1.0, 0.0]


def test_crowds_in_records_get_no_weight():
    key = crowds._KEYS
    example = {key.groundtruth_weights: tf.ones([3])}
    example[key.groundtruth_is_crowd] = tf.constant([False, True, False])
    assert crowds.without_weight(example)[key.groundtruth_weights].numpy().tolist() == [1, 0, 1]
    example[key.groundtruth_is_crowd] = tf.zeros([0], tf.bool)  # the key is optional
    assert crowds.without_weight(example)[key.groundtruth_weights].numpy().tolist() == [1, 1, 1]


def test_the_loss_of_a_crowd_is_that_of_a_hole(drawn, tmp_path):
    """A model's class loss with a crowd over all: anchors without an object count nothing."""
    from mobiledets_tf.detection import meta_architecture

    config = pipeline_config.generate(
        Overrides(architecture="edgetpu", num_classes=2, image_size=(96, 96), depth_multiplier=0.25)
    )
    model = meta_architecture.build_detection_model(config.model, is_training=True)
    images = tf.zeros([1, 96, 96, 3])
    predictions = model.predict(images, tf.constant([[96, 96, 3]]))
    losses = {}
    for name, crowd in (("alone", [0.0, 0.0, 0.0, 0.0]), ("crowd", [0.0, 0.0, 1.0, 1.0])):
        model.provide_groundtruth(
            [tf.constant([[0.2, 0.2, 0.7, 0.7], crowd])],
            [tf.constant([[1.0, 0.0], [0.0, 1.0]])],
            groundtruth_weights_list=[tf.constant([1.0, 0.0])],
        )
        loss = model.loss(predictions, tf.constant([[96, 96, 3]]))
        losses[name] = {key: float(value) for key, value in loss.items()}
    assert losses["crowd"]["Loss/localization_loss"] == losses["alone"]["Loss/localization_loss"]
    assert 0 < losses["crowd"]["Loss/classification_loss"] < losses["alone"]["Loss/classification_loss"]


def test_the_limit_of_boxes_follows_the_data(drawn, tmp_path):
    def crowded(value):
        first = value["images"][0]["id"]
        value["annotations"] = [
            {"id": i, "image_id": first, "category_id": 1, "bbox": [i % 50, i // 50, 10, 10]}
            for i in range(1, 151)
        ]

    data = _converted(drawn, tmp_path, crowded)
    config, _ = training_config.train_config(_job(data, tmp_path / "run"))
    limits = [config.train_config, config.train_input_reader, config.eval_input_reader[0]]
    assert [part.max_number_of_boxes for part in limits] == [150] * 3
    from mobiledets_tf.search.input_pipeline import Split

    assert Split(records.resolve(data, "train")).max_boxes == 150


def test_a_training_goes_on_with_the_same_classes_only(drawn, tmp_path):
    data, other = _converted(drawn, tmp_path / "a"), _converted(drawn, tmp_path / "b", _renamed)
    folder = tmp_path / "run"
    config, label_map = training_config.train_config(_job(data, folder))
    model_dir.start(folder, config, label_map, 0)
    with pytest.raises(InputError, match="class 5 is 'V' in .* and 'four' in the training in"):
        training_config.train_config(_job(other, folder))
    with pytest.raises(InputError, match="class 5 is 'V' in .* and 'four' in the training in"):
        training_config.eval_config(folder, other)
    assert training_config.eval_config(folder, data).eval_input_reader[0].max_number_of_boxes == 100
    with pytest.raises(InputError, match="classes differ: class 5 is 'V' in"):
        training_config.train_config(_job(data, tmp_path / "new", eval_data=other))


def test_records_that_call_a_class_otherwise_are_refused(drawn, tmp_path):
    """The label map was replaced, the records were not."""
    data, other = _converted(drawn, tmp_path / "a"), _converted(drawn, tmp_path / "b", _renamed)
    (tmp_path / "a" / "records" / "label_map.pbtxt").write_text(
        (tmp_path / "b" / "records" / "label_map.pbtxt").read_text().replace("zero", "null")
    )
    del other
    with pytest.raises(InputError, match="has class .* as '.*', label map .* has it as"):
        training_config.train_config(_job(data, tmp_path / "run"))


def test_predictors_of_other_classes_stay_fresh(tmp_path):
    records.write_label_map(tmp_path / "label_map.pbtxt", {1: "bolt", 2: "nut"})
    assert own_checkpoint._renamed(str(tmp_path), {1: "bolt", 2: "nut"}) == ""
    why = own_checkpoint._renamed(str(tmp_path), {1: "nut", 2: "bolt"})
    assert why == "class 1 is 'bolt' in the weights and 'nut' in the data"
    assert own_checkpoint._renamed(str(tmp_path / "none"), {1: "nut"}) == ""


def test_augmentation_by_flag_is_the_steps_of_the_api():
    config = pipeline_config.generate(Overrides(architecture="edgetpu", num_classes=2))
    flags = Overrides(random_flip=True, random_crop=True, random_color=True, random_scale=True)
    config = pipeline_config.override(config, flags)
    steps = [each.WhichOneof("preprocessing_step") for each in config.train_config.data_augmentation_options]
    assert steps == ["random_horizontal_flip", "random_distort_color", "random_pad_image", "ssd_random_crop"]
    assert pipeline_config.mirrors(config)
    config = pipeline_config.override(config, dataclasses.replace(flags, random_flip=False))
    assert not pipeline_config.mirrors(config)
    assert np.all([len(config.train_config.data_augmentation_options) == 3])
