"""Loads a network trained with simulated quantisation, for conversion to an int8 file."""

from collections.abc import Callable, Iterable

import numpy as np

from mobiledets_tf.compat import keras
from mobiledets_tf.models.quantized import QuantizedDetector, quantize_detector
from mobiledets_tf.weights import checkpoints
from tflite_export.export.quantize import Calibration

_BATCH = 8


def load(detector: keras.Model, checkpoint: str) -> tuple[QuantizedDetector, bool]:
    """Returns the quantised detector with the weights of a checkpoint; assigns them to `detector` too.

    Args:
      detector: a model of `build_detector`, for the network that the checkpoint belongs to.
      checkpoint: a checkpoint of float or quantisation-aware training.

    Returns:
      The quantised detector, and whether the checkpoint contained the ranges of its activations.

    Raises:
      InputError: the checkpoint is missing, is damaged or belongs to another network.
    """
    quantized = quantize_detector(detector)
    prefix = checkpoints.restore(quantized.network, checkpoint, quantized.named_weights)
    has_ranges = checkpoints.has_ranges(prefix)
    if has_ranges:
        checkpoints.restore_ranges(quantized.ranges, prefix)
    for weight in detector.weights:
        weight.assign(quantized.named_weights[weight.name])
    return quantized, has_ranges


def observe_ranges(
    quantized: QuantizedDetector,
    calibration: Calibration,
    progress: Callable[[Iterable], Iterable] = lambda items: items,
) -> None:
    """Sets the activation ranges by running images; weights and BN statistics do not change.

    This is for a checkpoint without ranges. As in training, the ranges move with each batch.
    """
    layers = [getattr(layer, "layer", layer) for layer in quantized.network.layers]
    frozen = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in frozen:
        # Keras runs a frozen BN with its moving statistics, even in training mode.
        layer.trainable = False
    try:
        batch: list[np.ndarray] = []
        for sample in calibration.samples(progress):
            batch += sample.values()
            if len(batch) == _BATCH:
                quantized.network(np.concatenate(batch), training=True)
                batch = []
        if batch:
            quantized.network(np.concatenate(batch), training=True)
    finally:
        for layer in frozen:
            layer.trainable = True
