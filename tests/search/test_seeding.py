"""Trained weights as the start of a search: what the shared weights hold, and a whole command."""

import json

import numpy as np
import pytest

from mobiledets_tf import architecture as architectures
from mobiledets_tf.cli import search
from mobiledets_tf.compat import keras
from mobiledets_tf.models import build_detector
from mobiledets_tf.models.supernet import Supernet
from mobiledets_tf.search import seeding
from mobiledets_tf.search.known import nearest
from mobiledets_tf.search_space import decode, encode, get_space
from mobiledets_tf.weights import imported_weights

SIZE, CLASSES, DEPTH = (96, 96), 10, 0.25


@pytest.fixture(scope="module")
def source():
    """Weights of `edgetpu` with scales that are not those of a start."""
    keras.utils.set_random_seed(1)
    target = imported_weights.Target(architectures.load("edgetpu"), CLASSES, SIZE, DEPTH)
    account, rng = imported_weights.Account("trained", "checkpoint", target), np.random.default_rng(2)
    for weight in build_detector(target.architecture, CLASSES, SIZE, DEPTH).weights:
        value = weight.numpy()
        if weight.name.endswith("gamma:0"):
            value = rng.uniform(0.5, 1.5, value.shape)
        account.take(weight.name, value, weight.name, value.shape)
    return account


def test_the_nearest_network_of_a_space_is_the_network_itself():
    space = get_space("ibn_fused_tucker", depth_multiplier=DEPTH)
    scaled = architectures.load("dsp").scaled(DEPTH)
    assert nearest(space, scaled) == tuple(encode(space, scaled))


@pytest.mark.slow
def test_the_shared_weights_hold_the_network_in_the_order_of_its_channels(source):
    space = get_space("ibn_fused_tucker", depth_multiplier=DEPTH)
    supernet = Supernet(space, CLASSES, SIZE)
    images = [np.random.default_rng(0).uniform(-1, 1, (4, *SIZE, 3)).astype(np.float32)]
    lines = seeding.seed(supernet, source, [], images)
    assert any("weights of edgetpu" in line for line in lines)
    decisions = encode(space, source.target.architecture.scaled(DEPTH))
    found = supernet.detector_weights(decisions)
    network = build_detector(decode(space, decisions), CLASSES, SIZE)
    for weight in network.weights:
        if (name := weight.name.removesuffix(":0")) in found:
            weight.assign(found[name])
    trained = build_detector(source.target.architecture, CLASSES, SIZE, DEPTH)
    imported_weights.assign(source, {weight.name: weight for weight in trained.weights})
    # The order of channels changes no output; the shared weights normalise by the batch.
    outputs = (net(images[0], training=True) for net in (network, trained))
    for ours, theirs in zip(*outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3 * float(np.std(theirs)) + 1e-4)
    name = "block5_layer1_project/kernel"
    given = source.weights[f"{name}:0"]
    assert not np.array_equal(found[name], given)
    np.testing.assert_array_equal(np.sort(found[name], axis=None), np.sort(given, axis=None))


@pytest.mark.slow
def test_a_search_starts_from_weights(source, sample_records, madds_file, tmp_path, capfd):
    imported_weights.write(source, tmp_path / "trained")
    flags = {
        "search_space": "ibn",
        "train_data": sample_records,
        "latency_model": madds_file,
        "latency_target": 1e7,
        "model_dir": tmp_path / "search",
        "steps": 1,
        "image_size": 96,
        "depth_multiplier": DEPTH,
        "batch_size": 2,
        "algorithm": "random",
        "published": "false",
        "finalists": 1,
        "finalist_steps": 0,
        "quality_images": 4,
        "rl_delay_fraction": 0,
        "init_from": tmp_path / "trained",
    }
    assert search.run(["mobiledets-search", *(f"--{name}={value}" for name, value in flags.items())]) == 0
    assert "weights of edgetpu at depth multiplier 0.25, remapped to init_from" in capfd.readouterr().err
    report = json.loads((tmp_path / "search" / "search_report.json").read_text())
    assert [row["name"] for row in report["devices"][0]["known"]] == ["init_from"]
    assert len(report["settings"]["initial"]) == 16


def test_weights_that_are_not_there_end_the_command(sample_records, madds_file, tmp_path, capsys):
    flags = (
        "--search_space=ibn",
        f"--train_data={sample_records}",
        f"--latency_model={madds_file}",
        "--latency_target=1e7",
        f"--model_dir={tmp_path}/new",
        "--image_size=96",
        "--depth_multiplier=0.25",
        "--init_from=nowhere",
    )
    assert search.run(["mobiledets-search", *flags]) == 2
    error = capsys.readouterr().err
    assert "--init_from=nowhere does not exist" in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()
