"""A network trained with simulated quantisation, as it goes into an int8 file."""

import numpy as np

from mobiledets_tf.compat import keras, tf
from mobiledets_tf.detection import checkpoints
from mobiledets_tf.models.quantized import QuantizedDetector, quantize_detector
from tflite_export.quantize import Calibration

_BATCH = 8
# Where quantisation-aware training keeps them.
_RANGES = "model/ranges/"


def load(detector: keras.Model, checkpoint: str) -> tuple[QuantizedDetector, bool]:
    """The quantised detector with the weights of a checkpoint; `detector` gets them too.

    Args:
      detector: of `build_detector`, of the network that the checkpoint is of.
      checkpoint: of a float or a quantisation-aware training.

    Returns:
      The detector, and whether the checkpoint had the ranges of its activations.

    Raises:
      InputError: the checkpoint is missing, damaged or of another network.
    """
    quantized = quantize_detector(detector)
    prefix = checkpoints.restore(quantized.network, checkpoint, quantized.named_weights)
    has_ranges = any(key.startswith(_RANGES) for key, _ in tf.train.list_variables(prefix))
    if has_ranges:
        checkpoints.restore_ranges(quantized.ranges, prefix)
    for weight in detector.weights:
        weight.assign(quantized.named_weights[weight.name])
    return quantized, has_ranges


def observe_ranges(
    quantized: QuantizedDetector, calibration: Calibration, progress=lambda items: items
) -> None:  # fmt: skip
    """Sets the ranges of activations by running images; weights and BN statistics stay.

    For a checkpoint without ranges. They move as in training, batch by batch.
    """
    layers = [getattr(layer, "layer", layer) for layer in quantized.network.layers]
    frozen = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in frozen:
        # Keras runs a frozen BN with its moving statistics, also in training.
        layer.trainable = False
    try:
        batch = []
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
