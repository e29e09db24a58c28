"""One entrance for weights of any origin: TF1 checkpoints and .tflite files."""

import os

from mobiledets_tf.architecture import Architecture
from mobiledets_tf.detection import tf1_checkpoint
from mobiledets_tf.detection.imported import Account
from mobiledets_tf.errors import InputError
from tflite_export import import_weights


def read(
    path: str,
    architecture: Architecture | None = None,
    num_classes: int | None = None,
    image_size: tuple[int, int] | None = None,
    depth_multiplier: float = 1.0,
) -> Account:
    """Reads a TF1 checkpoint or a .tflite file; see `tf1_checkpoint.read`, `import_weights.read`.

    Raises:
      InputError: neither, or it does not fit.
    """
    if os.path.isfile(path) and _is_tflite(path):
        account = import_weights.read(path, architecture, num_classes, depth_multiplier)
        if image_size is not None and account.target.image_size != image_size:
            # Weights do not depend on the size of the image.
            account = import_weights.resized(account, image_size)
        return account
    if path.endswith(".tflite"):
        return import_weights.read(path, architecture, num_classes, depth_multiplier)
    return tf1_checkpoint.read(path, architecture, num_classes, image_size or (320, 320), depth_multiplier)


def _is_tflite(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(8)[4:] == b"TFL3"
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from error
