"""Feeds the Object Detection API's input pipeline in an order that depends only on seed and position.

Epoch e visits all records in a permutation drawn from (seed, e); step s reads positions
s * batch to (s + 1) * batch. A run resumed at step s therefore sees the same images as an
uninterrupted one with the same augmentation, and the images of any step can be named.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from mobiledets_tf import compat
from mobiledets_tf.compat import tf
from mobiledets_tf.data.image_files import as_bitmap
from mobiledets_tf.data.record_index import DamagedRecord, RecordIndex
from mobiledets_tf.detection import crowds, random_numbers
from mobiledets_tf.errors import InputError

compat.enable_object_detection()

from object_detection import inputs  # noqa: E402
from object_detection.builders import decoder_builder  # noqa: E402


class Records:
    """Serialised examples by record number, for training and evaluation.

    Args:
      files: TFRecord shards.
      max_damaged: number of damaged records to skip before failing; the next intact record replaces each.
      cache_side: if set, decoded images are kept in memory, shrunk to at most this side (pixels); None
        reads and decodes them each time.

    Raises:
      InputError: the files contain no records.
    """

    def __init__(self, files: Sequence[str], max_damaged: int = 0, cache_side: int | None = None):
        self._index = RecordIndex(files)
        if not len(self._index):
            raise InputError(f"data {files[0]!r} contains no examples")
        self._max_damaged, self._cache_side = max_damaged, cache_side
        self._cache: dict[int, bytes] = {}
        self._damaged: set[int] = set()
        self.failure: DamagedRecord | None = None

    def __len__(self) -> int:
        return len(self._index)

    @property
    def files(self) -> list[str]:
        """The TFRecord shards."""
        return self._index.files

    def read(self, number: int) -> bytes:
        """Returns one serialised example.

        Raises:
          DamagedRecord: the record is damaged, and more records are damaged than may be skipped.
        """
        if number in self._cache:
            return self._cache[number]
        try:
            data = self._index.read(number)
        except DamagedRecord as damaged:
            return self.read(self._pass_over(number, damaged))
        if self._cache_side is not None:
            data = self._cache[number] = _decoded(data, self._cache_side)
        return data

    def _pass_over(self, number: int, damaged: DamagedRecord) -> int:
        if number not in self._damaged:
            self._damaged.add(number)
            if len(self._damaged) > min(self._max_damaged, len(self) - 1):
                # tf.data passes on only the text of an exception, so the exception itself is kept here.
                self.failure = damaged
                raise damaged
            tqdm.write(f"skipped record ({len(self._damaged)} of at most {self._max_damaged}): {damaged}")
        return (number + 1) % len(self)

    @functools.lru_cache(maxsize=4)  # noqa: B019 - the object lives as long as its training run anyway
    def _permutation(self, seed: int, epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(len(self))

    def at(self, position: int, seed: int) -> int:
        """Returns the number of the record at a position of the endless shuffled order."""
        epoch, place = divmod(position, len(self))
        return int(self._permutation(seed, epoch)[place])

    def image_ids(self, step: int, batch_size: int, seed: int) -> list[str]:
        """Returns the `image/source_id` of each image of a training step."""
        numbers = (self.at(step * batch_size + place, seed) for place in range(batch_size))
        examples = (tf.train.Example.FromString(self.read(number)) for number in numbers)
        ids = (example.features.feature["image/source_id"].bytes_list.value for example in examples)
        return [values[0].decode(errors="replace") if values else "?" for values in ids]


def _decoded(data: bytes, side: int) -> bytes:
    """Replaces the image of an example by a bitmap, which costs nothing to decode."""
    example = tf.train.Example.FromString(data)
    encoded = example.features.feature["image/encoded"].bytes_list
    encoded.value[0] = as_bitmap(encoded.value[0], side)
    return example.SerializeToString()


@contextlib.contextmanager
def training_order(records: Records, seed: int, start: int) -> Iterator[None]:
    """In this context, `inputs.train_input` returns endless, ordered batches from step `start` on."""

    def positions(batch_size: int, workers: int, worker: int) -> tf.data.Dataset:
        share = batch_size // workers
        first = tf.data.Dataset.range(start, np.iinfo(np.int64).max // batch_size)
        order = first.flat_map(
            lambda step: tf.data.Dataset.range(
                step * batch_size + worker * share, step * batch_size + (worker + 1) * share
            )
        )
        # Infinite cardinality rules out a smaller last batch, so tf.distribute keeps the batch size static.
        return order.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    def read(position: np.int64) -> bytes:
        return records.read(records.at(int(position), seed))

    with _built(positions, read, whole=True, seed=seed):
        yield


@contextlib.contextmanager
def file_order(records: Records) -> Iterator[None]:
    """In this context, `inputs.eval_input` returns every record once, in the order of the files."""

    def positions(batch_size: int, workers: int, worker: int) -> tf.data.Dataset:
        return tf.data.Dataset.range(len(records))

    with _built(positions, lambda position: records.read(int(position)), whole=False, seed=0):
        yield


@contextlib.contextmanager
def _built(positions: Callable, read: Callable, whole: bool, seed: int) -> Iterator[None]:
    """In this context, the API's file reading is replaced; its decoding and transforms are kept."""

    def build(
        config: Any,
        batch_size: int,
        transform_input_data_fn: Callable,
        input_context: tf.distribute.InputContext | None = None,
        reduce_to_frame_fn: Callable | None = None,
    ) -> tf.data.Dataset:
        workers, worker, size = 1, 0, batch_size
        if input_context is not None:
            workers, worker = input_context.num_input_pipelines, input_context.input_pipeline_id
            size = input_context.get_per_replica_batch_size(batch_size)
        decoder = decoder_builder.build(config)

        def example(position: tf.Tensor) -> Any:
            data = tf.numpy_function(read, [position], tf.string)
            data.set_shape(())
            with random_numbers.stateless(seed, position):
                return transform_input_data_fn(crowds.without_weight(decoder.decode(data)))

        examples = positions(batch_size, workers, worker).map(example, tf.data.AUTOTUNE)
        return examples.batch(size, drop_remainder=whole).prefetch(2)

    before = inputs.INPUT_BUILDER_UTIL_MAP["dataset_build"]
    inputs.INPUT_BUILDER_UTIL_MAP["dataset_build"] = build
    try:
        yield
    finally:
        inputs.INPUT_BUILDER_UTIL_MAP["dataset_build"] = before
