"""A small sample set, drawn and converted by the API."""

from pathlib import Path

import pytest

from mobiledets_tf import api


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """A data folder: 24 training and 4 validation images of 96 pixels, ten classes."""
    folder = tmp_path_factory.mktemp("sample") / "images"
    api.draw_sample(api.SampleOptions(output_dir=folder, num_train=24, num_val=4, image_size=96))
    return folder


@pytest.fixture(scope="session")
def records(sample) -> Path:
    """The converted folder of the sample."""
    folder = sample.parent / "records"
    dataset = api.convert_data(api.ConvertOptions(images=sample, output_dir=folder))
    assert dataset["splits"]["train"]["images"] == 24
    return folder
