"""The step of masked execution compiled by XLA, as a TPU compiles it, against the sliced step."""

import dataclasses

import numpy as np
import pytest

from mobiledets_tf.compat import keras, tf
from mobiledets_tf.detection import pipeline_config
from mobiledets_tf.models.supernet import Supernet, mix_option
from mobiledets_tf.search.input_pipeline import MAX_BOXES, Labels
from mobiledets_tf.search.step import SharedStep
from mobiledets_tf.search_space import get_space, sample

SIZE, CLASSES, IMAGES = 96, 3, 8


@pytest.fixture(scope="module")
def space():
    """A few layers, one of them residual: for all of them XLA on a CPU takes many minutes."""
    whole = get_space("ibn_fused_tucker", kernel_sizes=(3,), depth_multiplier=0.25)
    blocks = tuple(
        dataclasses.replace(block, layers=block.layers[: 2 if index == 2 else 1])
        for index, block in enumerate(whole.blocks)
    )
    return dataclasses.replace(whole, blocks=blocks)


def _step(space, execution):
    keras.utils.set_random_seed(1)
    config = pipeline_config.generate(
        pipeline_config.Overrides(architecture="edgetpu", num_classes=CLASSES, image_size=(SIZE, SIZE))
    )
    return SharedStep(lambda: Supernet(space, CLASSES, SIZE, execution=execution), config.model)


def _batch():
    rng = np.random.default_rng(0)
    first = np.eye(MAX_BOXES, dtype=np.float32)[0]
    box = np.float32([0.2, 0.2, 0.6, 0.7])
    labels = {
        Labels.num_groundtruth_boxes: np.ones(IMAGES, np.int32),
        Labels.groundtruth_boxes: np.tile(first[:, None] * box, (IMAGES, 1, 1)),
        Labels.groundtruth_classes: np.tile(first[:, None] * np.float32([0, 1, 0]), (IMAGES, 1, 1)),
        Labels.groundtruth_weights: np.tile(first, (IMAGES, 1)),
    }
    images = rng.uniform(-1, 1, (IMAGES, SIZE, SIZE, 3)).astype(np.float32)
    return tf.constant(images), {key: tf.constant(value) for key, value in labels.items()}


@pytest.mark.slow
def test_compiled_masked_step_equals_the_sliced_one(space):
    networks = [sample(space, np.random.default_rng(seed)) for seed in range(2)]
    # Op warm-up too: the mean of all options of one position.
    position = next(i for i, (_, node) in enumerate(space.decisions) if node.tag == "op")
    networks[1][position] = len(space.decisions[position][1].choices)
    images, labels = _batch()
    results = {}
    for execution in ("sliced", "masked"):
        step = _step(space, execution)
        before = [bank.rows.numpy() for bank in step.supernet.banks]
        assert mix_option(step.supernet.layers[0].layer) == networks[1][position]
        train = tf.function(step._train_replica, autograph=False, jit_compile=execution == "masked")
        losses = [train(images, labels, tf.constant(n, tf.int32), tf.constant(0.05)) for n in networks]
        results[execution] = (losses, [bank.rows.numpy() for bank in step.supernet.banks])
    for ours, theirs in zip(results["masked"][0], results["sliced"][0], strict=True):
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=name)
    # XLA's own arithmetic on a CPU is coarser: losses differ by 5e-6, updates by 2e-4 of the largest.
    moved = [np.abs(rows - start).max() for rows, start in zip(results["sliced"][1], before, strict=True)]
    for ours, theirs in zip(results["masked"][1], results["sliced"][1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * max(moved))
