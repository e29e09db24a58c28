"""Writes the weights that the search trained into the network it found, BN statistics recovered.

A search normalises by the batch and keeps no statistics; a detector needs them. One pass over
training images measures mean and variance at every batch normalisation.
"""

import os
from collections.abc import Sequence

import numpy as np

from mobiledets_tf.architecture import Architecture
from mobiledets_tf.compat import tf
from mobiledets_tf.detection import checkpoints
from mobiledets_tf.models.ssdlite import build_detector
from mobiledets_tf.weights.norm import recover_norm

# Training batches that statistics are measured on.
BATCHES = 16


def write(
    folder: str | os.PathLike, network: Architecture, num_classes: int, image_size: tuple[int, int],
    weights: dict[str, np.ndarray], images: Sequence[tf.Tensor], step: int,
) -> str:  # fmt: skip
    """Writes a checkpoint that `--init_from` and `--checkpoint_dir` take.

    Args:
      folder: of the search, which holds `architecture.json` and `settings.json`.
      network: with its final widths.
      num_classes, image_size: of the detector.
      weights: by canonical name, as `Supernet.detector_weights` gives them.
      images: float32 [batch, height, width, 3] in [-1, 1], several batches.
      step: how many steps the weights were trained.

    Returns:
      The checkpoint's prefix.
    """
    detector = build_detector(network, num_classes, image_size)
    for variable in detector.weights:
        name = variable.name.removesuffix(":0")
        if name in weights:
            variable.assign(weights[name])
    recover_norm(detector, images)
    return checkpoints.save({weight.name: weight for weight in detector.weights}, folder, step)
