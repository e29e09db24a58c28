"""Prepares images for the network, in the same way for calibration, evaluation and both runtimes."""

import numpy as np

from mobiledets_tf.compat import enable_object_detection, tf
from mobiledets_tf.data import records
from mobiledets_tf.data.record_index import DamagedRecord, RecordIndex
from mobiledets_tf.data.scaling import to_network_range
from mobiledets_tf.errors import InputError


def decode(encoded: bytes, name: str) -> np.ndarray:
    """Decodes an image to pixels [height, width, 3] uint8.

    Raises:
      InputError: the bytes are not an image; the message contains `name`.
    """
    try:
        return tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise InputError(f"image {name} cannot be decoded: {error.message.splitlines()[0]}") from error


def resize(pixels: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Resizes to (height, width) as training does; returns [height, width, 3] float32 in 0..255.

    This uses the function behind the API's `fixed_shape_resizer`: bilinear on float pixels, with the
    corner-aligned sampling grid of TF1. Another resize method would by itself change AP.
    """
    enable_object_detection()
    from object_detection.core import preprocessor

    height, width = image_size
    image = tf.constant(pixels, tf.float32)
    return preprocessor.resize_image(image, new_height=height, new_width=width)[0].numpy()


def normalize(pixels: np.ndarray) -> np.ndarray:
    """Scales 0..255 to [-1, 1] float32."""
    return to_network_range(np.asarray(pixels, np.float32))


def network_input(encoded: bytes, name: str, image_size: tuple[int, int]) -> np.ndarray:
    """Converts an encoded image to the float network's input: [1, height, width, 3] in [-1, 1].

    Raises:
      InputError: the image cannot be decoded.
    """
    return normalize(resize(decode(encoded, name), image_size))[np.newaxis]


def batches(
    files: list[str], image_size: tuple[int, int], count: int = 128, batch: int = 16, seed: int = 0
) -> list[np.ndarray]:
    """Samples images from TFRecord shards, in batches of equal size; damaged records are skipped.

    Args:
      files: shards with the Object Detection API's features.
      image_size: (height, width) of the network's input.
      count: maximum number of images.
      batch: images in a batch; reduced if there are fewer images.
      seed: seed of the sample.

    Returns:
      At least one batch, float32 [batch, height, width, 3] in [-1, 1].

    Raises:
      InputError: no shard contains an image, or an image cannot be decoded.
    """
    index = RecordIndex(files)
    found: list[np.ndarray] = []
    for number in np.random.default_rng(seed).permutation(len(index)):
        if len(found) == count:
            break
        try:
            example = records.parse_example(index.read(int(number)), f"record {number + 1}")
        except DamagedRecord:
            continue
        found.append(network_input(example.encoded, example.image_id, image_size))
    if not found:
        raise InputError(f"{files[0]!r} contains no readable image")
    size = min(batch, len(found))
    return [np.concatenate(found[i : i + size]) for i in range(0, len(found) - size + 1, size)]
