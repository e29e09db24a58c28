"""`MobileDet`: a detector of any architecture with any weights, as an ordinary `tf_keras` model.

It is defined above the package `models`, which does not read weight files. Its public name is
`mobiledets_tf.models.MobileDet`.
"""

import dataclasses
import os
import warnings
from collections.abc import Sequence

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf.architecture import Architecture
from mobiledets_tf.architecture.head import check_num_classes
from mobiledets_tf.compat import keras
from mobiledets_tf.errors import InputError
from mobiledets_tf.models import build_detector
from mobiledets_tf.weights import fitting, imported_weights, importing, zoo
from mobiledets_tf.weights.imported_weights import Account, Target
from mobiledets_tf.weights.importing import Wanted
from mobiledets_tf.weights.remap import same_network

DEFAULT_ARCHITECTURE, DEFAULT_NUM_CLASSES, DEFAULT_IMAGE_SIZE = "edgetpu", 90, 320


def MobileDet(  # Named like the networks of keras.applications.
    architecture: str | os.PathLike | Architecture | None = None,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    depth_multiplier: float | None = None,
    weights: str | os.PathLike | None = None,
    calibration_images: Sequence[np.ndarray] | None = None,
    weights_cache: str | os.PathLike | None = None,
) -> keras.Model:
    """Makes a MobileDet with an SSDLite head, with randomly initialised or trained weights.

    The model is that of `build_detector`: a functional model of plain Keras layers, which can be trained,
    cut, saved (as `.keras`, not as HDF5) and converted like any other. `decode_detections` is its
    post-processing. Import `mobiledets_tf.models` before TensorFlow, because it selects legacy Keras
    (`tf_keras`).

    Example:
      ```python
      import numpy as np
      from mobiledets_tf.models import MobileDet, decode_detections

      model = MobileDet("edgetpu", num_classes=10, image_size=160)  # or weights="runs/train"
      images = np.zeros((2, 160, 160, 3), np.float32)  # pixels / 127.5 - 1
      boxes, scores, classes, count = decode_detections(model(images), image_size=160)
      ```

    Args:
      architecture: a published network (`cpu`, `edgetpu`, `dsp`, `gpu`), an architecture file, or an
        `Architecture`; default: the network of the weights, or `edgetpu`.
      num_classes: number of classes without the background; default: that of the weights, or 90.
      image_size: side of the input or (height, width), in pixels; default: that of the weights, or 320.
      depth_multiplier: factor for all widths; default: that of the weights, or 1. TF1 checkpoints and .tflite
        files do not record their multiplier, so it must be given if it is not 1.
      weights: folder of a training, search or import, or a checkpoint in one; a TF1 checkpoint; a .tflite
        file; or `zoo:cpu`, `zoo:edgetpu`, `zoo:dsp` (downloaded). Weights of another architecture are
        remapped, which sets Keras's random seed to 0. None initialises the weights with Keras's random seed.
      calibration_images: batches of the model's input, float32 in [-1, 1], over which the statistics of
        batch normalisation are measured if the weights are remapped or come from a .tflite file. Without
        them, remapped weights need training before use, and those of a .tflite file are for inference only.
      weights_cache: folder for downloaded weights.

    Returns:
      A model from `image` [batch, height, width, 3] float32 in [-1, 1] to
      [raw_boxes [batch, anchors, 4], class_logits [batch, anchors, num_classes + 1]], float32; boxes are
      encoded as (ty, tx, th, tw), and class slot 0 is the background.

    Raises:
      InputError: the architecture or the weights are unknown, damaged or do not fit together, a number is
        out of range, or the download failed.

    Warns:
      UserWarning: some weights were not read unchanged from the file: they were initialised or remapped, or
        batch normalisation is folded into them. The message has the counts.
    """
    network = _loaded(architecture)
    if weights is None:
        return build_detector(
            network or architectures.load(DEFAULT_ARCHITECTURE),
            DEFAULT_NUM_CLASSES if num_classes is None else num_classes,
            DEFAULT_IMAGE_SIZE if image_size is None else image_size,
            1.0 if depth_multiplier is None else depth_multiplier,
        )
    account, target = _read(
        os.fspath(weights), network, num_classes, image_size, depth_multiplier, weights_cache
    )
    remapped = not same_network(account.target, target)
    if remapped or (account.folded_norm and calibration_images is not None):
        account = fitting.fit(account, target, calibration_images)
    model = build_detector(
        target.architecture, target.num_classes, target.image_size, target.depth_multiplier
    )
    imported_weights.assign(account, {weight.name: weight for weight in model.weights})
    if remapped or account.fresh or account.folded_norm:
        warnings.warn(f"weights {os.fspath(weights)!r}: {'; '.join(account.summary())}", stacklevel=2)
    return model


def _loaded(architecture: str | os.PathLike | Architecture | None) -> Architecture | None:
    if architecture is None or isinstance(architecture, Architecture):
        return architecture
    return architectures.load(architecture)


def _read(
    path: str,
    network: Architecture | None,
    num_classes: int | None,
    image_size: int | tuple[int, int] | None,
    depth_multiplier: float | None,
    cache: str | os.PathLike | None,
) -> tuple[Account, Target]:
    """Returns the unmodified weights and the detector to build for them."""
    zoo.check_exists("weights", path)
    if num_classes is not None:
        check_num_classes(num_classes)
    size = None if image_size is None else architectures.image_hw(image_size)
    if depth_multiplier is not None and not 0 < depth_multiplier <= 100:
        raise InputError(f"depth multiplier is {depth_multiplier}; allowed: above 0, at most 100")
    wanted = Wanted(network, num_classes, size, 1.0 if depth_multiplier is None else depth_multiplier)
    account, target = importing.read(zoo.local(path, None if cache is None else os.fspath(cache)), wanted)
    if depth_multiplier is not None:
        target = dataclasses.replace(target, depth_multiplier=float(depth_multiplier))
    return account, target
