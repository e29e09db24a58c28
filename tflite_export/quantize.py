"""Post-training quantisation to int8: calibration images and the converter's settings."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from mobiledets_tf.compat import tf
from mobiledets_tf.data import records
from mobiledets_tf.errors import InputError
from tflite_export import images
from tflite_export.layout import INPUT

# A set much larger than the sample is not read whole: the sample is drawn from the first
# records of its shards, taken in a random order.
READ_AHEAD = 20


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Images that set the ranges of activations.

    Attributes:
      images: encoded images with their names, or float arrays [height, width, 3] in [-1, 1].
      image_size: (height, width) the network takes.
      source: `images`, or `noise` when there is no data.
      seed: of the draw.
    """

    images: tuple
    image_size: tuple[int, int]
    source: str
    seed: int

    def samples(self, progress=lambda iterable: iterable) -> Iterator[dict[str, np.ndarray]]:
        """Network inputs [1, height, width, 3] float32 by signature name.

        The first image is made to hold both ends of the range in its first two pixels, so
        that the input is quantised over exactly [-1, 1] and a uint8 input takes raw pixels.
        """
        for index, image in enumerate(progress(self.images)):
            sample = self._sample(image)
            if index == 0:
                sample[0, 0, 0], sample[0, 0, 1] = -1, 1
            yield {INPUT: sample}

    def _sample(self, image) -> np.ndarray:
        if isinstance(image, np.ndarray):
            return image[np.newaxis].copy()
        name, encoded = image
        return images.network_input(encoded, name, self.image_size)

    def summary(self) -> dict:
        """What the report says of it."""
        return {"source": self.source, "count": len(self.images), "seed": self.seed}


def from_records(files: list[str], image_size: tuple[int, int], count: int, seed: int) -> Calibration:
    """Draws calibration images from TFRecord shards.

    Args:
      files: shards with the Object Detection API's features.
      image_size: (height, width) the network takes.
      count: how many; all of them where there are fewer.
      seed: of the draw.

    Raises:
      InputError: the shards hold no image, or a damaged record.
    """
    rng = np.random.default_rng(seed)
    order = [files[i] for i in rng.permutation(len(files))]
    examples = itertools.islice(records.read_examples(order), READ_AHEAD * count)
    drawn = _reservoir(((example.image_id, example.encoded) for example in examples), count, rng)
    if not drawn:
        raise InputError(f"calibration data {files[0]!r} holds no image")
    return Calibration(tuple(drawn), image_size, "images", seed)


def _reservoir(items: Iterator, count: int, rng: np.random.Generator) -> list:
    """A uniform sample of `count` items of a stream, read once."""
    kept = []
    for seen, item in enumerate(items):
        if len(kept) < count:
            kept.append(item)
        elif (slot := rng.integers(seen + 1)) < count:
            kept[slot] = item
    return kept


def from_noise(image_size: tuple[int, int], count: int, seed: int) -> Calibration:
    """Uniform noise: good for timing a network without data, never for its accuracy."""
    rng = np.random.default_rng(seed)
    noise = (rng.uniform(-1, 1, (*image_size, 3)).astype(np.float32) for _ in range(count))
    return Calibration(tuple(noise), image_size, "noise", seed)


def configure(converter: tf.lite.TFLiteConverter, input_type: str, raw_outputs: bool, samples) -> None:
    """Sets a converter to full int8 with static ranges.

    Args:
      converter: to be changed.
      input_type: `int8`, `uint8` or `float`.
      raw_outputs: without post-processing the outputs are int8 where the input is an integer;
        behind the post-process op they are always float.
      samples: makes an iterator of network inputs.
    """
    configure_trained(converter, input_type, raw_outputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = samples


def configure_trained(converter: tf.lite.TFLiteConverter, input_type: str, raw_outputs: bool) -> None:
    """Sets a converter to int8 with the ranges that are part of the network."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = {"int8": tf.int8, "uint8": tf.uint8, "float": tf.float32}[input_type]
    if raw_outputs and input_type != "float":
        converter.inference_output_type = tf.int8
