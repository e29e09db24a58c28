"""Converts a checked data folder to TFRecord shards with exactly the Object Detection API's keys."""

import contextlib
import errno
import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mobiledets_tf import files
from mobiledets_tf.data import coco, folders, image_files, records
from mobiledets_tf.data.check import Checked
from mobiledets_tf.errors import CheckFailed, InputError

DATASET = records.DATASET
# A few hundred images per shard let readers and replicas work in parallel; COCO gets 100 shards.
_IMAGES_PER_SHARD = 250
_MAX_SHARDS = 100
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}\.tfrecord")


def convert(
    checked: Sequence[Checked], output_dir: str | os.PathLike, num_shards: int | None = None
) -> dict[str, Any]:
    """Writes the splits to `output_dir`, completely or not at all.

    Other splits that were converted to the same folder are kept; splits of the same name are replaced.

    Args:
      checked: splits without faults, as returned by `check.check`.
      output_dir: folder for the shards, `label_map.pbtxt` and `dataset.json`.
      num_shards: number of shards per split, at most one per image; None writes one per 250 images, up
        to 100.

    Returns:
      The content of `dataset.json`: categories, and the counts and shards of each split.

    Raises:
      CheckFailed: a split has faults.
      InputError: the folder contains other splits with another label map.
    """
    faults = sum(len(each.faults) for each in checked)
    if faults:
        raise CheckFailed(f"nothing was converted: {faults} faults in the data")
    output_dir = Path(output_dir)
    categories = _numbered(checked[0].dataset.categories)
    kept = _kept_splits(output_dir, categories, {each.split.name for each in checked})
    with folders.staging_folder(output_dir) as staging:
        written = {each.split.name: _write_split(each, staging, categories, num_shards) for each in checked}
        dataset = {
            "schema_version": records.DATASET_VERSION,
            "categories": categories,
            "splits": dict(sorted({**kept, **written}.items())),
        }
        records.write_label_map(staging / records.LABEL_MAP, _names(categories))
        files.write_artefact(staging / DATASET, dataset)
        _publish(staging, output_dir, set(written))
    return dataset


def _numbered(categories: Sequence[coco.Category]) -> list[dict[str, Any]]:
    """Numbers the categories from 1 in the order of their COCO ids, which may have gaps."""
    return [
        {"id": number, "name": category.name, "coco_id": category.id}
        for number, category in enumerate(categories, start=1)
    ]


def _names(categories: list[dict[str, Any]]) -> dict[int, str]:
    return {category["id"]: category["name"] for category in categories}


def _kept_splits(output_dir: Path, categories: list[dict[str, Any]], written: set[str]) -> dict[str, Any]:
    """Returns the `dataset.json` entries of splits to keep; their label map has to match the categories."""
    others = {split for split, _ in _shards(output_dir)} - written
    if not others:
        return {}
    existing = records.read_label_map(output_dir / records.LABEL_MAP)
    if existing != _names(categories):
        ours, theirs = set(_names(categories).items()), set(existing.items())
        raise InputError(
            f"the label map in {str(output_dir)!r} (of {', '.join(sorted(others))}) differs from the data: "
            f"only the label map has {sorted(theirs - ours)}, only the data has {sorted(ours - theirs)}"
        )
    splits = records.read_dataset(output_dir / DATASET).get("splits")
    if not isinstance(splits, dict) or not others <= set(splits):
        path = str(output_dir / DATASET)
        raise InputError(f"{path!r} does not list the shards beside it; write to a new folder")
    return {name: splits[name] for name in others}


def _shards(folder: Path) -> list[tuple[str, str]]:
    """Returns (split, file name) of every shard in a folder."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [(match[1], name) for name in names if (match := _SHARD.fullmatch(name))]


def _publish(staging: Path, output_dir: Path, written: set[str]) -> None:
    if not output_dir.exists() or folders.is_empty_folder(output_dir):
        os.rename(staging, output_dir)
    else:
        outdated = [name for split, name in _shards(output_dir) if split in written]
        folders.replace_files(staging, output_dir, outdated)


def _write_split(
    checked: Checked, folder: Path, categories: list[dict[str, Any]], num_shards: int | None
) -> dict[str, Any]:
    """Writes the shards of one split; returns its counts and the names of the shards."""
    images = checked.dataset.images
    count = min(num_shards or _default_shards(len(images)), len(images))
    shards = [records.shard_name(checked.split.name, index, count) for index in range(count)]
    boxes = checked.dataset.by_image()
    by_coco_id = {category["coco_id"]: category for category in categories}
    with (
        _tfrecord_writers([folder / shard for shard in shards]) as writers,
        tqdm(images, desc=f"convert {checked.split.name}", unit="image", leave=False) as shown,
    ):
        for index, image in enumerate(shown):
            encoded = _encoded(checked, image)
            writers[index % count].write(_example(image, encoded, boxes[image.id], by_coco_id))
    return _counts(checked.dataset, categories) | {"shards": shards}


def _default_shards(images: int) -> int:
    return min(math.ceil(images / _IMAGES_PER_SHARD), _MAX_SHARDS)


def _counts(dataset: coco.Dataset, categories: list[dict[str, Any]]) -> dict[str, Any]:
    per_category = Counter(annotation.category_id for annotation in dataset.annotations)
    return {
        "images": len(dataset.images),
        "images_without_boxes": sum(not boxes for boxes in dataset.by_image().values()),
        "boxes": len(dataset.annotations),
        "crowd_boxes": sum(annotation.is_crowd for annotation in dataset.annotations),
        records.MOST_BOXES: max(map(len, dataset.by_image().values()), default=0),
        "boxes_per_category": {each["name"]: per_category[each["coco_id"]] for each in categories},
    }


@contextlib.contextmanager
def _tfrecord_writers(paths: Sequence[Path]) -> Iterator[list[Any]]:
    """Opens a writer for each shard; converts TensorFlow's error for a full disk to an OSError."""
    from mobiledets_tf.compat import tf

    try:
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(tf.io.TFRecordWriter(str(path))) for path in paths]
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths[0].parent)) from error


def _encoded(checked: Checked, image: coco.Image) -> bytes:
    """Returns the content of an image's JPEG file; only bytes that were not checked are decoded again."""
    split, seen = checked.split, checked.prints.get(image.id)
    try:
        data = split.read_picture(image.file_name)
        same = seen is not None and hashlib.sha256(data).digest() == seen.checksum
        decodes = image.id not in checked.repaired if same else None
        return image_files.as_jpeg(data, (image.width, image.height), image.as_stored, decodes)
    except image_files.PictureError as error:  # The image was valid when it was checked.
        raise InputError(f"{split.annotations}: image {image.id} changed after the check: {error}") from error


def _example(
    image: coco.Image, encoded: bytes, boxes: Sequence[coco.Annotation], categories: dict[int, dict[str, Any]]
) -> bytes:
    """Serialises one example with the keys and types of the API's `tf_example_decoder.py`."""
    from mobiledets_tf.compat import tf

    corners = [(x, y, x + width, y + height) for x, y, width, height in (box.bbox for box in boxes)]
    classes = [categories[box.category_id] for box in boxes]
    texts = {
        "image/encoded": [encoded],
        "image/format": [b"jpeg"],
        "image/filename": [image.file_name.encode()],
        "image/source_id": [str(image.id).encode()],
        "image/key/sha256": [hashlib.sha256(encoded).hexdigest().encode()],
        "image/object/class/text": [each["name"].encode() for each in classes],
    }
    integers = {
        "image/height": [image.height],
        "image/width": [image.width],
        "image/object/class/label": [each["id"] for each in classes],
        "image/object/is_crowd": [int(box.is_crowd) for box in boxes],
    }
    reals = {
        "image/object/bbox/xmin": [left / image.width for left, _, _, _ in corners],
        "image/object/bbox/xmax": [right / image.width for _, _, right, _ in corners],
        "image/object/bbox/ymin": [top / image.height for _, top, _, _ in corners],
        "image/object/bbox/ymax": [bottom / image.height for _, _, _, bottom in corners],
        "image/object/area": [box.area for box in boxes],
    }
    train = tf.train
    feature = {
        **{key: train.Feature(bytes_list=train.BytesList(value=value)) for key, value in texts.items()},
        **{key: train.Feature(int64_list=train.Int64List(value=value)) for key, value in integers.items()},
        **{key: train.Feature(float_list=train.FloatList(value=value)) for key, value in reals.items()},
    }
    example = train.Example(features=train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)
