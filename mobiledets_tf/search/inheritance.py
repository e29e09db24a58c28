"""Writes the weights trained in a search as a checkpoint of the network found, with BN statistics.

A search normalises by the statistics of the batch and keeps none, but a detector needs them. One pass
over training images measures mean and variance at every batch normalisation.
"""

import os
from collections.abc import Sequence

import numpy as np

from mobiledets_tf.architecture import Architecture
from mobiledets_tf.compat import tf
from mobiledets_tf.models.ssdlite import build_detector
from mobiledets_tf.weights import checkpoints
from mobiledets_tf.weights.norm import recover_norm

# Number of training batches on which the statistics are measured.
BATCHES = 16


def write(
    folder: str | os.PathLike,
    network: Architecture,
    num_classes: int,
    image_size: tuple[int, int],
    weights: dict[str, np.ndarray],
    images: Sequence[tf.Tensor],
    step: int,
) -> str:
    """Writes a checkpoint that `--init_from` and `--checkpoint_dir` accept.

    Args:
      folder: folder of the search, which contains `architecture.json` and `settings.json`.
      network: the network with its final widths.
      num_classes, image_size: number of classes and input size of the detector.
      weights: weights by canonical name, as returned by `Supernet.detector_weights`.
      images: several batches of images, float32 [batch, height, width, 3] in [-1, 1].
      step: number of steps for which the weights were trained.

    Returns:
      Prefix of the checkpoint.
    """
    detector = build_detector(network, num_classes, image_size)
    for variable in detector.weights:
        name = variable.name.removesuffix(":0")
        if name in weights:
            variable.assign(weights[name])
    recover_norm(detector, images)
    return checkpoints.save({weight.name: weight for weight in detector.weights}, folder, step)
