"""A small converted sample set and a latency model of it, for all tests of searches."""

from pathlib import Path

import pytest

from mobiledets_tf.cli import data, latency


@pytest.fixture(scope="session")
def space_flags() -> tuple[str, ...]:
    """Which space the latency model is of."""
    return ("--search_space=ibn", "--image_size=96", "--depth_multiplier=0.25")


@pytest.fixture(scope="session")
def sample_records(tmp_path_factory) -> Path:
    """60 training images of 96 pixels, ten classes."""
    folder = tmp_path_factory.mktemp("sample")
    images, records = folder / "images", folder / "records"
    counts = ("--num_train=60", "--num_val=4", "--image_size=96")
    assert data.run(["x", "--mode=sample", f"--output_dir={images}", *counts]) == 0
    assert data.run(["x", "--mode=convert", f"--images={images}", f"--output_dir={records}"]) == 0
    return records


@pytest.fixture(scope="session")
def madds_file(tmp_path_factory, space_flags) -> Path:
    """A latency model of exact multiply-adds for `space_flags`."""
    path = tmp_path_factory.mktemp("model") / "latency_model.json"
    fit = ("--mode=fit", "--device=madds", "--num_classes=10", f"--output={path}")
    assert latency.run(["x", *fit, *space_flags]) == 0
    return path
