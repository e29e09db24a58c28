"""Input pipeline of a search: the Object Detection API's decoder and transforms, split by image id."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mobiledets_tf import compat
from mobiledets_tf.compat import tf
from mobiledets_tf.data import records
from mobiledets_tf.detection import crowds
from mobiledets_tf.errors import InputError

compat.enable_object_detection()

from object_detection import inputs  # noqa: E402
from object_detection.builders import image_resizer_builder  # noqa: E402
from object_detection.core import standard_fields as fields  # noqa: E402
from object_detection.data_decoders import tf_example_decoder  # noqa: E402

Labels = fields.InputDataFields
# Number of hash buckets of image ids. One bucket steers the search (MobileDets: 10 % of the training set),
# one is reserved for judging the finalists, and the others train the shared weights.
BUCKETS = 10
SIDES = ("steer", "judge", "train")
# Minimum number of boxes that labels have room for; raised if an image has more.
MAX_BOXES = 100
# Size of the shuffle buffer in serialized examples.
SHUFFLE_BUFFER = 2048
# Minimum number of batches of fixed held-out images, and minimum number of images per batch, which BN uses
# for its statistics.
_FIXED_BATCHES, _LEAST_IN_BATCH = 4, 4
# Number of image ids parsed together, and of ways to hash them that are tried.
_IDS_TOGETHER, _SALTS = 4096, 100
# Spacing between the epoch seeds of different streams, which must not coincide.
_EPOCHS = 1 << 20
_SOURCE_ID = {"image/source_id": tf.io.FixedLenFeature([], tf.string, "")}
LABEL_KEYS = (
    Labels.num_groundtruth_boxes,
    Labels.groundtruth_boxes,
    Labels.groundtruth_classes,
    Labels.groundtruth_weights,
    Labels.groundtruth_is_crowd,
)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images and labels for one step of one replica.

    Attributes:
      images: float32 [batch, height, width, 3] in [-1, 1].
      labels: the API's padded ground truth tensors by key.
      ids: COCO image ids, string [batch].
    """

    images: tf.Tensor
    labels: dict[str, tf.Tensor]
    ids: tf.Tensor


class Split:
    """A training set split into three parts, called sides, by the hash of image ids; see `SIDES`.

    In a set of a few dozen images the hash may leave a side empty. The ids are then hashed together with the
    first number that gives each side at least half of its share.

    Args:
      files: paths of TFRecord shards.

    Attributes:
      images: side -> number of images.
      max_boxes: number of boxes per image that labels have room for.
    """

    def __init__(self, files: Sequence[str]):
        self._files = list(files)
        self.max_boxes = max(MAX_BOXES, records.most_boxes(self._files))
        ids = self._examples(self._paths).map(_source_id, num_parallel_calls=tf.data.AUTOTUNE)
        found = [part.numpy() for part in compat.without_autotune(ids.batch(_IDS_TOGETHER))]
        self._salt, counts = _fair_salt(np.concatenate(found) if found else np.zeros(0, "S1"))
        self.images = dict(zip(SIDES, counts, strict=True))

    @property
    def _paths(self) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(self._files)

    def _examples(self, paths: tf.data.Dataset) -> tf.data.Dataset:
        return paths.interleave(tf.data.TFRecordDataset, cycle_length=4)

    def epoch(self, side: str, seed: tf.Tensor) -> tf.data.Dataset:
        """Returns the serialized examples of a side, shuffled with a seed."""
        examples = self._examples(self._paths.shuffle(len(self._files), seed=seed))
        number = SIDES.index(side)
        mine = examples.filter(
            lambda serialized: tf.equal(_sides(_source_id(serialized), self._salt), number)
        )
        return mine.shuffle(SHUFFLE_BUFFER, seed=seed)


def fixed_batch_size(images: int, most: int) -> int:
    """Returns the batch size for comparing networks.

    It leaves several batches, because the spread over batches shows how certain a comparison is.

    Args:
      images: number of held-out images.
      most: largest batch size, used if there are enough images.
    """
    return min(most, max(_LEAST_IN_BATCH, images // _FIXED_BATCHES))


def _source_id(serialized: tf.Tensor) -> tf.Tensor:
    return tf.io.parse_single_example(serialized, _SOURCE_ID)["image/source_id"]


def _sides(source_ids: tf.Tensor, salt: str) -> tf.Tensor:
    """Returns indices in `SIDES`: buckets 0 and 1 are the first two sides, all others train."""
    keys = tf.strings.join([source_ids, salt]) if salt else source_ids
    buckets = tf.strings.to_hash_bucket_fast(keys, BUCKETS)
    return tf.cast(tf.minimum(buckets, len(SIDES) - 1), tf.int32)


def _fair_salt(source_ids: np.ndarray) -> tuple[str, list[int]]:
    """Returns what ids are hashed with, '' unless that leaves a side empty, and the images of each side."""
    images = len(source_ids)
    wanted = min(_LEAST_IN_BATCH, math.ceil(images / (2 * BUCKETS)))
    plain = _counts(source_ids, "")
    if min(plain) > 0:
        return "", plain
    for number in range(_SALTS if images else 0):
        counts = _counts(source_ids, salt := f"+{number}")
        if min(counts) >= wanted:
            return salt, counts
    return "", plain


def _counts(source_ids: np.ndarray, salt: str) -> list[int]:
    sides = _sides(tf.constant(source_ids, tf.string), salt).numpy()
    return np.bincount(sides, minlength=len(SIDES)).tolist()


class Stream:
    """An endless shuffled stream of one side of the split; each batch is a function of its number.

    The order of each epoch is derived from the seed and the number of the epoch, so the stream can
    start at any batch: a resumed search sees the same images as an uninterrupted one.

    Args:
      split: split of the training set.
      label_map: path of the label map.
      model_config: the `model` part of a pipeline config, which defines image size and classes.
      preprocess: preprocessing function of the detection model; maps pixels to [-1, 1].
      batch_size: number of images per replica.
      side: one of `SIDES`.
      seed: seed of the order.

    Raises:
      InputError: this side contains no image.
    """

    def __init__(
        self,
        split: Split,
        label_map: str,
        model_config: Any,
        preprocess: Callable,
        batch_size: int,
        side: str,
        seed: int,
    ) -> None:
        self._split = split
        self._decoder = tf_example_decoder.TfExampleDecoder(label_map_proto_file=label_map)
        self._transform = _transform(model_config, preprocess, split.max_boxes)
        self.batch_size = batch_size
        self._side = side
        self._seed = len(SIDES) * seed + SIDES.index(side)
        self.images = split.images[side]
        if not self.images:
            raise InputError(
                f"none of the {sum(split.images.values())} training images is in the part {side!r} of the "
                f"split into {', '.join(SIDES)}; more images are needed"
            )

    def batches(self, number: int, replica: int = 0, replicas: int = 1) -> Iterator[Batch]:
        """Yields the batches of one replica, starting at a step.

        Args:
          number: number of the first step.
          replica, replicas: index of the replica and number of replicas; each step uses one batch per
            replica, in the order of the replicas.
        """
        yield from self._batches(self._serialized(number, replica, replicas))

    def recorded(
        self, number: int, count: int, replica: int = 0, replicas: int = 1
    ) -> Callable[[], Iterator[Batch]]:
        """Reads batches for several passes; they are read once and decoded in each pass.

        Args:
          number, replica, replicas: as in `batches`.
          count: number of batches.

        Returns:
          A function that starts a pass over the batches.
        """
        serialized = self._serialized(number, replica, replicas).take(count * self.batch_size)
        kept = tf.data.Dataset.from_tensor_slices(list(compat.without_autotune(serialized)))
        return lambda: self._batches(kept)

    def _serialized(self, number: int, replica: int, replicas: int) -> tf.data.Dataset:
        size = self.batch_size
        first_epoch, skipped = divmod(number * size * replicas, self.images)

        def epoch(index: tf.Tensor) -> tf.data.Dataset:
            return self._epoch(index).skip(tf.where(index == first_epoch, np.int64(skipped), np.int64(0)))

        serialized = tf.data.Dataset.counter(first_epoch).flat_map(epoch)
        if replicas > 1:
            mine = serialized.enumerate().filter(lambda index, _: index // size % replicas == replica)
            serialized = mine.map(lambda _, example: example)
        return serialized

    def _batches(self, serialized: tf.data.Dataset) -> Iterator[Batch]:
        decoded = serialized.map(self._decode, num_parallel_calls=2, deterministic=True)
        batches = decoded.batch(self.batch_size, drop_remainder=True).prefetch(2)
        for images, labels, ids in compat.without_autotune(batches):
            yield Batch(images, labels, ids)

    def fixed(self, images: int) -> list[Batch]:
        """Returns the same batches at every call.

        Args:
          images: wanted number of images; it is limited to those of the side and rounded down to whole
            batches, at least one.
        """
        count = max(1, min(images, self.images) // self.batch_size)
        return list(itertools.islice(self.batches(0), count))

    def _epoch(self, index: tf.Tensor) -> tf.data.Dataset:
        return self._split.epoch(self._side, self._seed * _EPOCHS + index)

    def _decode(self, serialized: tf.Tensor) -> tuple:
        example = crowds.without_weight(self._decoder.decode(serialized))
        return *self._transform(example), example[Labels.source_id]


def _transform(model_config: Any, preprocess: Callable, max_boxes: int) -> Callable:
    resizer = image_resizer_builder.build(model_config.ssd.image_resizer)
    shape = model_config.ssd.image_resizer.fixed_shape_resizer
    num_classes = model_config.ssd.num_classes

    def run(example: dict[str, tf.Tensor]) -> tuple:
        example = inputs.transform_input_data(example, preprocess, resizer, num_classes)
        example = inputs.pad_input_data_to_static_shapes(
            example, max_boxes, num_classes, [shape.height, shape.width]
        )
        return example[Labels.image], {key: example[key] for key in LABEL_KEYS if key in example}

    return run


def ground_truth(labels: dict, image_size: tuple[int, int], num_classes: int) -> dict:
    """Converts a batch's boxes to a COCO dictionary in pixels of the network's input.

    Args:
      labels: padded ground truth tensors of a batch by key.
      image_size: (height, width) of the input.
      num_classes: number of classes.

    Returns:
      A COCO dictionary in which images are numbered from 1.
    """
    height, width = image_size
    arrays = {key: tensor.numpy() for key, tensor in labels.items()}
    images: list[dict] = []
    annotations: list[dict] = []
    counts = arrays[Labels.num_groundtruth_boxes]
    for image, count in enumerate(counts):
        images.append({"id": image + 1, "height": height, "width": width})
        for row in range(count):
            top, left, bottom, right = (float(v) for v in arrays[Labels.groundtruth_boxes][image, row])
            box = [left * width, top * height, (right - left) * width, (bottom - top) * height]
            crowd = arrays.get(Labels.groundtruth_is_crowd)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 1,
                    "category_id": int(arrays[Labels.groundtruth_classes][image, row].argmax()) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd[image, row]) if crowd is not None else 0,
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": c, "name": str(c)} for c in range(1, num_classes + 1)],
    }
