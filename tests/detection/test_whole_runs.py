"""Whole runs of mobiledets-train: their summaries, their silence, and an image that stops them."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from mobiledets_tf.cli import train as command
from mobiledets_tf.compat import tf
from mobiledets_tf.detection.drawing import TRUE

SMALL = ("--architecture=edgetpu", "--image_size=96", "--depth_multiplier=0.25", "--batch_size=4")


def run(*flags: str) -> int:
    return command.run(["mobiledets-train", *flags])


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A training of one step, with augmentation."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    flags = (f"--train_data={tiny}", f"--model_dir={folder}", "--mode=train", "--steps=1", "--random_flip")
    assert run(*SMALL, *flags) == 0
    return folder


@pytest.fixture
def damaged(tiny, tmp_path):
    """Makes a copy of the data in which one image of a split, that with id 3, is cut in half."""

    def make(split: str):
        folder = tmp_path / "damaged"
        shutil.copytree(tiny, folder)
        file = str(folder / f"{split}-00000-of-00001.tfrecord")
        examples = [
            tf.train.Example.FromString(data.numpy()) for data in list(tf.data.TFRecordDataset([file]))
        ]
        encoded = examples[3].features.feature["image/encoded"].bytes_list
        encoded.value[0] = encoded.value[0][: len(encoded.value[0]) // 2]
        with tf.io.TFRecordWriter(file) as writer:
            for example in examples:
                writer.write(example.SerializeToString())
        return folder

    return make


def _bounds(mask: np.ndarray) -> np.ndarray:
    """(top, left, bottom, right) of the pixels of a mask."""
    rows, columns = np.nonzero(mask)
    return np.array([rows.min(), columns.min(), rows.max(), columns.max()])


@pytest.mark.slow
def test_augmented_samples_are_in_tensorboard_with_their_boxes(trained):
    """Boxes are drawn round the squares of the data, wherever augmentation has put these."""
    events = (
        event
        for path in (trained / "train").glob("events.*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
    )
    [value] = [v for event in events for v in event.summary.value if v.tag == "augmented"]
    # Width and height come before the images.
    pictures = [tf.io.decode_png(png).numpy().astype(int) for png in tf.make_ndarray(value.tensor)[2:]]
    assert len(pictures) == 4 and {picture.shape for picture in pictures} == {(96, 96, 3)}
    with_boxes = 0
    for picture in pictures:
        drawn = (picture == TRUE).all(axis=2)
        # Squares have 220 in one channel, the noise around them at most 60.
        square = ((picture[..., 0] > 150) | (picture[..., 2] > 150)) & ~drawn
        assert drawn.any() == square.any()
        if drawn.any():
            assert np.abs(_bounds(drawn) - _bounds(square)).max() <= 4
            with_boxes += 1
    assert with_boxes >= 3  # every fifth image has no box


@pytest.mark.slow
def test_an_evaluation_says_its_figures_and_nothing_else(trained):
    line = [sys.executable, "-m", "mobiledets_tf.cli.train", "--mode=eval", f"--model_dir={trained}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-4].startswith("class")
    assert "step 1  AP " in done.stdout and "detections that match no box" in done.stdout
    # Progress bars are redrawn in place, and cleared at the end.
    lines = [each.strip() for each in done.stderr.replace("\r", "\n").splitlines()]
    assert [each for each in lines if each and not each.startswith("evaluate step ")] == []


@pytest.mark.slow
def test_a_training_names_the_image_that_cannot_be_decoded(damaged, tmp_path, capsys):
    data = damaged("train")
    flags = (f"--train_data={data}", f"--model_dir={tmp_path / 'model'}", "--mode=train", "--steps=4")
    assert run(*SMALL, *flags) == 1
    error = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert f"image '3' (record 4 of {str(data)!r}) cannot be decoded" in error[-1]
    assert not any("Traceback" in line for line in error)


@pytest.mark.slow
def test_an_evaluation_names_the_image_that_cannot_be_decoded(trained, damaged, tmp_path, capsys):
    data, folder = damaged("val"), tmp_path / "model"
    shutil.copytree(trained, folder)
    (folder / "eval_metrics.json").unlink(missing_ok=True)
    assert run("--mode=eval", f"--model_dir={folder}", f"--eval_data={data}") == 1
    output, error = capsys.readouterr()
    error = error.replace("\r", "\n").splitlines()
    assert f"image '3' (record 4 of {str(data)!r}) cannot be decoded" in error[-1]
    assert not any("Traceback" in line for line in error)
    # AP of the other images would be taken for that of all.
    assert "AP" not in output and not (folder / "eval_metrics.json").exists()
    assert run("--mode=eval", f"--model_dir={folder}") == 0
    assert [row["step"] for row in json.loads((folder / "eval_metrics.json").read_text())] == [1]
