"""What to export: flags and the training folder agree, or one line says where they don't."""

import json
import shutil

import pytest

from mobiledets_tf import architecture as architectures
from mobiledets_tf.data import records
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import trained_network


@pytest.fixture
def copy(training, tmp_path):
    """A training folder that a test may change."""
    return shutil.copytree(training, tmp_path / "training")


def test_a_training_folder_says_everything(training):
    found = trained_network.resolve(checkpoint=str(training))
    assert found.architecture == architectures.load("edgetpu")
    assert found.scaled() == architectures.load("edgetpu").scaled(0.25)
    assert (found.num_classes, found.image_size, found.depth_multiplier) == (3, (96, 96), 0.25)
    assert found.labels == ("circle", "square", "star")


def test_a_checkpoint_prefix_is_read_with_its_folder(training):
    assert trained_network.resolve(checkpoint=str(training / "ckpt-1")).num_classes == 3


def test_flags_that_agree_pass(training):
    found = trained_network.resolve("edgetpu", str(training), 3, 96, 0.25)
    assert found.image_size == (96, 96)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"architecture": "cpu"}, "--architecture=cpu differs from the network"),
        ({"num_classes": 4}, "--num_classes=4 contradicts the training folder, which has 3"),
        ({"image_size": 320}, r"image_size=\[320, 320\] contradicts .* \[96, 96\]"),
        ({"depth_multiplier": 0.5}, "--depth_multiplier=0.5 contradicts .* 0.25"),
    ],
)
def test_a_flag_that_contradicts_the_folder_is_refused(training, flags, words):
    with pytest.raises(InputError, match=words):
        trained_network.resolve(checkpoint=str(training), **flags)


def test_without_a_folder_the_published_defaults_hold():
    found = trained_network.resolve("dsp")
    assert (found.num_classes, found.image_size, found.depth_multiplier) == (90, (320, 320), 1.0)
    assert found.labels[0] == "class 1"
    assert found.checkpoint is None


def test_without_a_folder_the_data_names_the_classes(folder):
    found = trained_network.resolve("dsp", data=tuple(records.resolve(str(folder), "val")))
    assert found.labels == ("circle", "square", "star")


def test_gaps_of_a_label_map_keep_their_line(copy):
    records.write_label_map(copy / "label_map.pbtxt", {1: "two\nlines", 3: "star"})
    assert trained_network.resolve(checkpoint=str(copy)).labels == ("two lines", "???", "star")


def settings(num_classes=3, image_size=(96, 96), depth_multiplier=1) -> str:
    return json.dumps(
        {"num_classes": num_classes, "image_size": image_size, "depth_multiplier": depth_multiplier}
    )


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("settings.json", "{", "not valid JSON"),
        ("settings.json", "[]", "is not a JSON object"),
        ("settings.json", settings(num_classes="3"), "lacks"),
        ("settings.json", settings(image_size=96), "lacks"),
        ("settings.json", settings(image_size=[9, 9]), "six feature maps"),
        ("settings.json", settings(num_classes=2), "class 3"),
        ("settings.json", settings(depth_multiplier=-1), "depth multiplier"),
        ("label_map.pbtxt", "item {", "cannot be parsed"),
        ("architecture.json", "{}", "architecture.json"),
    ],
)
def test_a_damaged_folder_is_refused(copy, file, content, words):
    (copy / file).write_text(content)
    with pytest.raises(InputError, match=words):
        trained_network.resolve(checkpoint=str(copy))


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match="--architecture is required: .* contains no architecture.json"):
        trained_network.resolve(checkpoint=str(tmp_path))
    with pytest.raises(InputError, match="this folder or checkpoint does not exist"):
        trained_network.resolve("cpu", str(tmp_path / "ckpt-9"))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({1: "circle", 2: "oval", 3: "star"}, "class 2 is 'oval' in the label map and 'square'"),
        ({1: "circle", 2: "square"}, "class 3 is '\\?\\?\\?' in the label map and 'star'"),
        ({1: "circle", 2: "square", 3: "star", 4: "x"}, "class 4 is 'x' in the label map and 'none'"),
    ],
)
def test_data_of_other_categories_is_refused(tmp_path, names, words):
    path = tmp_path / "label_map.pbtxt"
    records.write_label_map(path, names)
    with pytest.raises(InputError, match=words):
        trained_network.check_categories(("circle", "square", "star"), path)
    records.write_label_map(path, {1: "circle", 2: "square", 3: "star"})
    trained_network.check_categories(("circle", "square", "star"), path)
