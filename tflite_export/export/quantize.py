"""Post-training quantisation to int8: calibration images and the converter's settings."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from mobiledets_tf.compat import tf
from mobiledets_tf.data import preprocessing, records
from mobiledets_tf.errors import InputError
from tflite_export.tflite.layout import INPUT

# Limits reading from a large data set: for each calibration image at most this many records are read,
# from the start of the shards in random order, and the images are sampled from these.
READ_AHEAD = 20


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Images that set the activation ranges.

    Attributes:
      images: encoded images with their names, or float arrays [height, width, 3] in [-1, 1].
      image_size: (height, width) of the network's input.
      source: `images`, or `noise` if there is no data.
      seed: seed of the sample.
    """

    images: tuple
    image_size: tuple[int, int]
    source: str
    seed: int

    def samples(
        self, progress: Callable[[Iterable], Iterable] = lambda iterable: iterable
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields network inputs [1, height, width, 3] float32 by signature name.

        The first two pixels of the first image are set to both ends of the range, so that the input is
        quantised over exactly [-1, 1] and a uint8 input accepts raw pixels.
        """
        for index, image in enumerate(progress(self.images)):
            sample = self._sample(image)
            if index == 0:
                sample[0, 0, 0], sample[0, 0, 1] = -1, 1
            yield {INPUT: sample}

    def _sample(self, image: np.ndarray | tuple[str, bytes]) -> np.ndarray:
        if isinstance(image, np.ndarray):
            return image[np.newaxis].copy()
        name, encoded = image
        return preprocessing.network_input(encoded, name, self.image_size)

    def summary(self) -> dict:
        """Returns the calibration section of the report."""
        return {"source": self.source, "count": len(self.images), "seed": self.seed}


def from_records(files: list[str], image_size: tuple[int, int], count: int, seed: int) -> Calibration:
    """Samples calibration images from TFRecord shards.

    Args:
      files: shards with the Object Detection API's features.
      image_size: (height, width) of the network's input.
      count: number of images; all of them if there are fewer.
      seed: seed of the sample.

    Raises:
      InputError: the shards contain no image, or a damaged record.
    """
    rng = np.random.default_rng(seed)
    order = [files[i] for i in rng.permutation(len(files))]
    examples = itertools.islice(records.read_examples(order), READ_AHEAD * count)
    drawn = _reservoir(((example.image_id, example.encoded) for example in examples), count, rng)
    if not drawn:
        raise InputError(f"calibration data {files[0]!r} contains no image")
    return Calibration(tuple(drawn), image_size, "images", seed)


def _reservoir(items: Iterator, count: int, rng: np.random.Generator) -> list:
    """Returns a uniform sample of `count` items of a stream, which is read once."""
    kept: list[Any] = []
    for seen, item in enumerate(items):
        if len(kept) < count:
            kept.append(item)
        elif (slot := rng.integers(seen + 1)) < count:
            kept[slot] = item
    return kept


def from_noise(image_size: tuple[int, int], count: int, seed: int) -> Calibration:
    """Returns uniform noise, which is enough to time a network without data, but not for accuracy."""
    rng = np.random.default_rng(seed)
    noise = (rng.uniform(-1, 1, (*image_size, 3)).astype(np.float32) for _ in range(count))
    return Calibration(tuple(noise), image_size, "noise", seed)


def configure(
    converter: tf.lite.TFLiteConverter, input_type: str, raw_outputs: bool, samples: Callable
) -> None:
    """Configures a converter for full int8 with static ranges.

    Args:
      converter: the converter to modify.
      input_type: `int8`, `uint8` or `float`.
      raw_outputs: whether there is no post-processing. The outputs are then int8 if the input is an
        integer; the outputs of the post-process op are always float.
      samples: returns an iterator of network inputs.
    """
    configure_trained(converter, input_type, raw_outputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = samples


def configure_trained(converter: tf.lite.TFLiteConverter, input_type: str, raw_outputs: bool) -> None:
    """Configures a converter for int8 with the activation ranges that are stored in the network."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = {"int8": tf.int8, "uint8": tf.uint8, "float": tf.float32}[input_type]
    if raw_outputs and input_type != "float":
        converter.inference_output_type = tf.int8
