"""A tiny sound data folder, to damage and convert."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobiledets_tf.data import sample


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six train and three val images; don't write to it."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    sample.write_sample(folder, num_train=6, num_val=3, image_size=96, seed=3)
    return folder


@pytest.fixture
def data(pristine: Path, tmp_path: Path) -> Path:
    """A copy of `pristine` of one's own."""
    folder = tmp_path / "data"
    for source in pristine.rglob("*"):
        if source.is_file():
            target = folder / source.relative_to(pristine)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return folder


@pytest.fixture
def edit(data: Path) -> Callable[[Callable[[dict[str, Any]], None]], None]:
    """Edits instances_train.json of `data` through a function of its dictionary."""

    def apply(change: Callable[[dict[str, Any]], None]) -> None:
        path = data / "instances_train.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    return apply
