"""Reads weights of any origin: checkpoints of this project, TF1 checkpoints and .tflite files."""

import os
from collections.abc import Mapping

from mobiledets_tf.architecture import Architecture
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import own_checkpoint, tf1_checkpoint, tflite_file
from mobiledets_tf.weights.imported_weights import Account, Target
from mobiledets_tf.weights.remap import same_network


def read(
    path: str,
    architecture: Architecture | None = None,
    num_classes: int | None = None,
    image_size: tuple[int, int] | None = None,
    depth_multiplier: float = 1.0,
) -> Account:
    """Reads a TF1 checkpoint or a .tflite file; see `tf1_checkpoint.read`, `tflite_file.read`.

    Raises:
      InputError: the path is neither, or its weights do not fit.
    """
    if os.path.isfile(path) and _is_tflite(path):
        account = tflite_file.read(path, architecture, num_classes, depth_multiplier)
        if image_size is not None and account.target.image_size != image_size:
            # Weights do not depend on the image size.
            account = tflite_file.resized(account, image_size)
        return account
    if path.endswith(".tflite"):
        return tflite_file.read(path, architecture, num_classes, depth_multiplier)
    return tf1_checkpoint.read(path, architecture, num_classes, image_size or (320, 320), depth_multiplier)


def read_for(path: str, target: Target, names: Mapping[int, str] | None = None) -> Account:
    """Reads weights for a detector, from the same network or from the network that they belong to.

    A folder of this project records which network its weights belong to. Other weights are tried first as
    weights of the detector itself, then of a published network at the detector's width, then at full width.

    Args:
      path: folder or checkpoint of this project, TF1 checkpoint, or .tflite file.
      target: the detector that the weights are for.
      names: class names of the detector by class id; a folder of this project may have had other classes.

    Raises:
      InputError: there are no weights, or they are damaged or belong to an unknown network.
    """
    if own_checkpoint.is_own(path):
        theirs = own_checkpoint.described(path, target.image_size)
        if theirs is None or same_network(theirs, target):
            return own_checkpoint.read(path, target, names)
        return own_checkpoint.read(path, theirs, names)
    size, multiplier = target.image_size, target.depth_multiplier
    itself = (target.architecture, target.num_classes, multiplier)
    tries = [itself, (None, None, multiplier), (None, None, 1.0)]
    for network, classes, width in dict.fromkeys(tries):
        try:
            return read(path, network, classes, size, width)
        except InputError as error:
            last = error
    raise last


def _is_tflite(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(8)[4:] == b"TFL3"
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from error
