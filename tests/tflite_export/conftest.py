"""A small detector, its files and a small data set, made once."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from mobiledets_tf import architecture as architectures
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.data import records
from mobiledets_tf.models import build_detector, postprocess
from mobiledets_tf.weights import checkpoints
from tflite_export.detector.keras_detector import KerasDetector
from tflite_export.export import convert, quantize
from tflite_export.tflite.suppression import Suppression

SIZE, CLASSES, MULTIPLIER = 96, 3, 0.25
NAMES = {1: "circle", 2: "square", 3: "star"}
NUM_IMAGES = 6


@pytest.fixture(scope="session")
def clients():
    """The module `clients.py` beside this file."""
    spec = importlib.util.spec_from_file_location("clients", Path(__file__).with_name("clients.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def network():
    return architectures.load("edgetpu").scaled(MULTIPLIER)


@pytest.fixture(scope="session")
def anchors(network):
    return postprocess.anchors(network, SIZE)


@pytest.fixture(scope="session")
def detector(network):
    """Fresh weights, with heads so strong that scores and boxes differ as those of a trained one."""
    keras.utils.set_random_seed(3)
    model = build_detector(network, CLASSES, SIZE)
    for layer in model.layers:
        if layer.name.endswith(("_class_conv", "_box_conv")):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * (25 if "class" in layer.name else 8), bias])
    return model


@pytest.fixture(scope="session")
def pictures():
    """[n, height, width, 3] uint8: smooth random colours, not square."""
    rng = np.random.default_rng(5)
    coarse = rng.uniform(0, 255, (NUM_IMAGES, 6, 8, 3))
    return tf.cast(tf.image.resize(coarse, (120, 150), "bicubic"), tf.uint8).numpy()


@pytest.fixture(scope="session")
def folder(tmp_path_factory, detector, anchors, pictures):
    """A converted folder. Its ground truth is what the float detector finds best: AP is high."""
    path = tmp_path_factory.mktemp("records")
    records.write_label_map(path / "label_map.pbtxt", NAMES)
    detect = KerasDetector(detector, anchors, Suppression())
    examples = [_example(index, image, detect) for index, image in enumerate(pictures)]
    for split in ("train", "val"):
        with tf.io.TFRecordWriter(str(path / f"{split}-00000-of-00001.tfrecord")) as writer:
            for example in examples:
                writer.write(example.SerializeToString())
    return path


def _example(index: int, image: np.ndarray, detect, best: int = 4):
    from mobiledets_tf.data import preprocessing

    encoded = tf.io.encode_png(image).numpy()
    found = detect(preprocessing.network_input(encoded, "test", (SIZE, SIZE)))
    boxes, classes = found.boxes[:best], found.classes[:best]
    return _record(encoded, str(100 + index), image.shape, boxes, classes)


@pytest.fixture(scope="session")
def make_example():
    """Makes a tf.train.Example with the Object Detection API's keys."""
    return _record


def _record(encoded: bytes, image_id: str, shape, boxes: np.ndarray, classes: np.ndarray):
    def floats(values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[float(v) for v in values]))

    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(v) for v in values]))

    def texts(values):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    names = ("ymin", "xmin", "ymax", "xmax")
    sides = {f"image/object/bbox/{side}": floats(boxes[:, i]) for i, side in enumerate(names)}
    features = {
        "image/encoded": texts([encoded]),
        "image/source_id": texts([image_id.encode()]),
        "image/height": ints([shape[0]]),
        "image/width": ints([shape[1]]),
        "image/object/class/label": ints(classes),
        **sides,
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


@pytest.fixture(scope="session")
def training(tmp_path_factory, detector):
    """A training folder as `mobiledets-train` leaves it."""
    path = tmp_path_factory.mktemp("training")
    architectures.save(architectures.load("edgetpu"), path / "architecture.json")
    settings = {
        "schema_version": 1,
        "num_classes": CLASSES,
        "image_size": [SIZE, SIZE],
        "depth_multiplier": MULTIPLIER,
    }
    (path / "settings.json").write_text(json.dumps(settings))
    records.write_label_map(path / "label_map.pbtxt", NAMES)
    checkpoints.save({weight.name: weight for weight in detector.weights}, path, 7)
    return path


@pytest.fixture(scope="session")
def calibration(folder):
    return quantize.from_records([str(folder / "train-00000-of-00001.tfrecord")], (SIZE, SIZE), 100, seed=0)


@pytest.fixture(scope="session")
def tflite(tmp_path_factory, detector, anchors, calibration):
    """Makes a .tflite file, each kind once: (quantization, input type, post-processing) -> path."""
    folder, made = tmp_path_factory.mktemp("tflite"), {}

    def make(quantization: str, input_type: str, postprocess: str = "tflite"):
        key = (quantization, input_type, postprocess)
        if key not in made:
            options = convert.Options(*key)
            made[key] = folder / f"{'_'.join(key)}.tflite"
            made[key].write_bytes(convert.convert(detector, anchors, options, calibration))
        return made[key]

    return make
