"""A small converted sample set, a latency model of it and a space of few networks, for tests of searches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mobiledets_tf.cli import data, latency
from mobiledets_tf.search_space import OneOf, SearchSpace, get_space


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


@pytest.fixture(scope="session")
def few_space() -> SearchSpace:
    """A space small enough to go through: two or three options of each kind of decision, 110,592 networks."""
    whole = get_space("ibn_fused_tucker", depth_multiplier=0.25)

    def few(node: OneOf, count: int) -> OneOf:
        count = min(count, len(node.choices))
        return dataclasses.replace(node, choices=(*node.choices[: count - 1], node.choices[-1]))

    blocks = tuple(
        dataclasses.replace(
            block,
            # The fourth block has its width fixed; two blocks have residual layers, which may be left out.
            filters=few(block.filters, 1 if index == 3 else 2),
            layers=tuple(
                dataclasses.replace(layer, op=few(layer.op, 3 if number or index == 1 else 2))
                for number, layer in enumerate(block.layers[: 2 if index in (2, 4) else 1])
            ),
        )
        for index, block in enumerate(whole.blocks)
    )
    return dataclasses.replace(whole, stem_filters=few(whole.stem_filters, 2), blocks=blocks)


@pytest.fixture(scope="session")
def few_networks(few_space) -> np.ndarray:
    """All networks of `few_space`; int64 [networks, decisions]."""
    counts = [len(node.choices) for _, node in few_space.decisions]
    return np.stack(np.unravel_index(np.arange(few_space.size), counts), axis=1)
