"""The tiny data set of `boxes.py`, and jobs on it."""

import importlib.util
from pathlib import Path

import pytest

from mobiledets_tf.compat import tf


def _boxes():
    """Tests are no package: the helper is loaded from its file."""
    spec = importlib.util.spec_from_file_location("tiny_boxes", Path(__file__).with_name("boxes.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A converted folder: 16 training and 5 validation images of 96x96, two classes."""
    return _boxes().write(tmp_path_factory.mktemp("tiny") / "records")


@pytest.fixture
def empty(tmp_path) -> Path:
    """A converted folder whose shards hold nothing."""
    return _boxes().write(tmp_path / "empty", train=0, val=0)


@pytest.fixture(scope="session")
def loss_curve():
    """Reads step -> total loss, or another value, from the TensorBoard summaries of a folder."""

    def read(folder: Path, tag: str = "Loss/total_loss") -> dict[int, float]:
        found = {}
        for path in sorted(folder.glob("events.*")):
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                for value in event.summary.value:
                    if value.tag == tag:
                        found[event.step] = float(tf.make_ndarray(value.tensor))
        return found

    return read
