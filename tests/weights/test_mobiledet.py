"""`MobileDet`: the networks of `build_detector`, with weights of every origin, and their detections."""

import shutil
import warnings

import numpy as np
import pytest

from mobiledets_tf import architecture as architectures
from mobiledets_tf.compat import keras
from mobiledets_tf.errors import InputError
from mobiledets_tf.models import MobileDet, build_detector, decode_detections, postprocess
from mobiledets_tf.weights import checkpoints
from tflite_export.detector.keras_detector import KerasDetector
from tflite_export.tflite.suppression import Suppression


@pytest.fixture(scope="module")
def images(pictures):
    """float32 [2, 96, 96, 3] in [-1, 1]."""
    return np.asarray(pictures[:2, :96, :96], np.float32) / 127.5 - 1


def _quiet(*args, **kwargs):
    """A MobileDet that must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return MobileDet(*args, **kwargs)


def _same(one, other, images):
    for ours, theirs in zip(one(images), other(images), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("name", architectures.PUBLISHED)
def test_fresh_networks_are_those_of_build_detector(name, images):
    keras.utils.set_random_seed(7)
    ours = _quiet(name, num_classes=3, image_size=96, depth_multiplier=0.25)
    keras.utils.set_random_seed(7)
    theirs = build_detector(architectures.load(name), 3, 96, 0.25)
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    _same(ours, theirs, images)


def test_defaults_are_the_published_edgetpu():
    model = _quiet()
    assert model.count_params() == 4_196_095
    assert model.input_shape == (None, 320, 320, 3)
    assert [tuple(shape) for shape in model.output_shape] == [(None, 2034, 4), (None, 2034, 91)]


def test_files_and_objects_are_architectures(tmp_path):
    network = architectures.load("cpu")
    architectures.save(network, tmp_path / "mine.json")
    made = [_quiet(given, 1, 96, 0.25) for given in (network, tmp_path / "mine.json", "cpu")]
    assert len({tuple((w.name, tuple(w.shape)) for w in model.weights) for model in made}) == 1


def test_it_is_an_ordinary_keras_model(images, tmp_path):
    model = _quiet("edgetpu", 3, 96, 0.25)
    assert type(model) is type(build_detector(architectures.load("edgetpu"), 3, 96, 0.25))
    model.save(tmp_path / "model.keras")
    _same(keras.models.load_model(tmp_path / "model.keras", compile=False), model, images)
    model.compile("sgd", "mse")
    targets = [np.zeros(output.shape, np.float32) for output in model(images)]
    before = model.get_layer("stem_conv").get_weights()[0]
    model.fit(images, targets, batch_size=2, verbose=0)
    assert np.abs(model.get_layer("stem_conv").get_weights()[0] - before).max() > 0


@pytest.mark.parametrize("part", ["", "ckpt-1"])
def test_a_folder_says_everything(training, detector, images, part):
    _same(_quiet(weights=training / part), detector, images)


def test_a_folder_at_another_size_keeps_its_weights(training, detector):
    model = _quiet(weights=training, image_size=(128, 96))
    assert model.input_shape == (None, 128, 96, 3)
    for ours, theirs in zip(model.get_weights(), detector.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_classes_start_fresh_with_a_word(training, detector, images):
    with pytest.warns(UserWarning, match="it has 3 classes, but the network has 5"):
        model = MobileDet(weights=str(training), num_classes=5)
    boxes, logits = model(images)
    np.testing.assert_array_equal(boxes, detector(images)[0])
    assert logits.shape[2] == 6


def test_another_network_is_remapped_with_a_word(training, images):
    with pytest.warns(UserWarning, match="weights of another network: .* cut"):
        model = MobileDet("cpu", weights=training, calibration_images=[images])
    assert model.get_layer("stem_conv").get_weights()[0].shape[-1] == 8  # 16 at the folder's multiplier.
    assert all(np.isfinite(output.numpy()).all() for output in model(images))


def test_another_multiplier_is_another_network(training):
    with pytest.warns(UserWarning, match="widened"):
        model = MobileDet(weights=training, depth_multiplier=0.5)
    assert model.get_layer("stem_conv").get_weights()[0].shape[-1] == 16


def test_a_float_file_computes_the_same(tflite, detector, images):
    with pytest.warns(UserWarning, match="inference only"):
        model = MobileDet("edgetpu", depth_multiplier=0.25, weights=tflite("float", "float"))
    assert model.input_shape == (None, 96, 96, 3)
    for ours, theirs in zip(model(images), detector(images), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-3)


def test_a_file_can_be_made_ready_for_training(tflite, images):
    path = tflite("float", "float")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = MobileDet("edgetpu", depth_multiplier=0.25, weights=path, calibration_images=[images])
    assert not any("inference only" in str(warning.message) for warning in caught)
    assert np.ptp(model.get_layer("stem_conv_bn").get_weights()[3]) > 0


def test_detections_are_those_of_the_exported_detector(detector, anchors, images):
    found = decode_detections(detector(images), 96, score_threshold=0.3)
    for number in range(len(images)):
        theirs = KerasDetector(detector, anchors, Suppression(score_threshold=0.3))(
            images[number : number + 1]
        )
        boxes, scores, classes, count = (output.numpy()[number] for output in found)
        assert count == len(theirs.scores) > 0
        np.testing.assert_allclose(scores[:count], theirs.scores, rtol=1e-4)
        np.testing.assert_allclose(boxes[:count], theirs.boxes, atol=1e-4)
        assert list(classes[:count]) == list(theirs.classes)


def test_all_architectures_have_the_same_anchors():
    for size in (96, (129, 200), 320):
        made = [postprocess.anchors(architectures.load(name), size) for name in architectures.PUBLISHED]
        assert all((one == made[0]).all() for one in made)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"architecture": "edgtpu"}, "did you mean 'edgetpu'"),
        ({"num_classes": 0}, "number of classes is 0"),
        ({"image_size": 12}, "image size 12 does not fit"),
        ({"depth_multiplier": -1.0}, "depth multiplier is -1.0"),
        ({"weights": "none"}, "none does not exist"),
        ({"weights": "zoo:gpu"}, "unknown network of zoo: 'gpu'"),
        ({"weights": "training", "num_classes": 0}, "number of classes is 0"),
        ({"weights": "training", "depth_multiplier": float("nan")}, "depth multiplier is nan"),
        ({"weights": "training", "image_size": 12}, "image size 12 does not fit"),
    ],
)
def test_wrong_input(settings, words, training):
    if settings.get("weights") == "training":
        settings = settings | {"weights": training}
    with pytest.raises(InputError, match=words):
        MobileDet(**settings)


def test_outputs_of_another_size_are_refused(detector, images):
    with pytest.raises(InputError, match="anchors, but a model with image size 160 has"):
        decode_detections(detector(images), 160)
    with pytest.raises(InputError, match="unknown nms 'fats' .did you mean 'fast'"):
        decode_detections(detector(images), 96, nms="fats")


def test_a_damaged_checkpoint_is_refused(training, tmp_path):
    copy = shutil.copytree(training, tmp_path / "copy")
    data = next(copy.glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(InputError, match="checkpoint"):
        MobileDet(weights=copy)
    assert checkpoints.step(training) == 7
