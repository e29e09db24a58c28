"""Reads converted folders: TFRecord shards with the Object Detection API's keys, and their label map.

train-00000-of-00004.tfrecord ...   val-00000-of-00001.tfrecord   label_map.pbtxt   dataset.json
"""

import functools
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf import files as text_files
from mobiledets_tf.data.record_index import DamagedRecord, RecordIndex
from mobiledets_tf.errors import CheckFailed, InputError

LABEL_MAP, DATASET, DATASET_VERSION = "label_map.pbtxt", "dataset.json", 1
# Key in the counts of each split in `dataset.json`.
MOST_BOXES = "most_boxes_in_an_image"
_BOX_KEYS = tuple(f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))


@dataclass(frozen=True)
class Example:
    """One image with its N boxes.

    Attributes:
      image_id: `image/source_id`: the COCO image id in digits if this project wrote the record, often
        the file name if another program did.
      encoded: content of the JPEG file.
      height, width: size of the image in pixels.
      boxes: float32 [N, 4], (ymin, xmin, ymax, xmax), from 0 to 1.
      classes: int64 [N], ids of the label map.
      names: the N class names.
      is_crowd: bool [N], whether each box marks a crowd.
      area: float32 [N], area of each object in pixels^2.
    """

    image_id: str
    encoded: bytes
    height: int
    width: int
    boxes: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]
    is_crowd: np.ndarray
    area: np.ndarray


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of a shard of a split."""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def resolve(pattern_or_folder: str, split: str) -> list[str]:
    """Returns the sorted TFRecord files of a glob pattern, or of one split of a converted folder.

    Raises:
      InputError: no file matches, or the folder lacks shards of the split.
    """
    pattern = str(pattern_or_folder)
    is_folder = _is_folder(pattern)
    if is_folder:
        pattern = os.path.join(_glob_escape(pattern), f"{split}-*.tfrecord")
    found = sorted(_glob(pattern))
    if not found:
        raise InputError(
            f"no TFRecord files match {pattern!r}; give a glob pattern or a folder written by "
            "mobiledets-data --mode=convert"
        )
    if is_folder:
        _require_whole_set(found, split)
    return found


def label_map_path(files: Sequence[str]) -> str:
    """Returns the path of the label map beside the shards: `label_map.pbtxt`, or the only .pbtxt file.

    Raises:
      InputError: there is no such file, or the shards are in different folders.
    """
    folders = {os.path.dirname(file) for file in files}
    if len(folders) != 1:
        raise InputError(f"TFRecord files are in several folders: {', '.join(sorted(folders))}")
    folder = folders.pop()
    path = os.path.join(folder, LABEL_MAP)
    if _exists(path):
        return path
    others = _glob(os.path.join(_glob_escape(folder), "*.pbtxt"))
    if len(others) != 1:
        found = f"; there are {len(others)} other .pbtxt files" if others else ""
        raise InputError(f"no {LABEL_MAP} beside the TFRecord files: {path!r} does not exist{found}")
    return others[0]


def read_label_map(path: str | os.PathLike) -> dict[int, str]:
    """Maps class ids to names, in order of id; raises as `label_map_names`.

    A name is the display name if the label map has one.
    """
    return {number: names[0] for number, names in label_map_names(path).items()}


def label_map_names(path: str | os.PathLike) -> dict[int, tuple[str, ...]]:
    """Maps class ids to all their names, in order of id, with the display name first if there is one.

    Raises:
      InputError: the file is unreadable or not a label map, or an id is below 1 or used twice.
    """
    from google.protobuf import text_format

    message = _label_map_class()()
    try:
        # Label maps may also contain keypoints, ancestors, ...
        text_format.Parse(_read_text(str(path)), message, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise InputError(f"label map {str(path)!r} cannot be parsed: {error}") from error
    names = {item.id: tuple(filter(None, (item.display_name, item.name))) or ("",) for item in message.item}
    if not names or min(names) < 1 or len(names) != len(message.item):
        raise InputError(f"label map {str(path)!r} should have items with unique ids of at least 1")
    return dict(sorted(names.items()))


def write_label_map(path: str | os.PathLike, names: dict[int, str]) -> None:
    """Writes class names by id as a label map of the Object Detection API, atomically."""
    from google.protobuf import text_format

    message = _label_map_class()()
    for class_id, name in names.items():
        message.item.add(id=class_id, name=name)
    text_files.write_text(path, text_format.MessageToString(message, as_utf8=True))


def read_examples(files: Sequence[str]) -> Iterator[Example]:
    """Yields every example, in the order of the files.

    Raises:
      InputError: a file is damaged, or an example lacks one of the keys.
    """
    from google.protobuf.message import DecodeError

    from mobiledets_tf.compat import tf

    for file in files:
        try:
            for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
                yield _parse(tf.train.Example.FromString(record).features.feature)
        except tf.errors.OpError as error:
            raise InputError(f"TFRecord file {file!r} cannot be read: {error.message}") from error
        except (DecodeError, ValueError) as error:
            raise InputError(f"TFRecord file {file!r} contains no detection examples: {error}") from error


def parse_example(data: bytes, where: str) -> Example:
    """Parses one serialised example.

    Args:
      data: the serialised `tf.train.Example`.
      where: name of the record, for messages.

    Raises:
      InputError: the data is not a detection example, or lacks one of the keys.
    """
    from google.protobuf.message import DecodeError

    from mobiledets_tf.compat import tf

    try:
        return _parse(tf.train.Example.FromString(data).features.feature)
    except (DecodeError, ValueError) as error:
        raise InputError(f"{where} is not a detection example: {error}") from error


def ground_truth(files: Sequence[str]) -> dict[str, Any]:
    """Returns the boxes of the files as a COCO dictionary, with class ids of the label map, in pixels.

    Images are in the order of the records. Their ids are `image/source_id` if all of these consist
    of digits, otherwise 1, 2, 3 ... in this order.

    Raises:
      InputError: as `read_examples` and `label_map_path`; or an image occurs twice.
    """
    names = read_label_map(label_map_path(files))
    images: list[dict[str, int]] = []
    annotations: list[dict[str, Any]] = []
    texts: list[str] = []
    for number, example in enumerate(read_examples(files), 1):
        texts.append(example.image_id)
        images.append({"id": number, "width": example.width, "height": example.height})
        annotations += coco_boxes(example, number, len(annotations))
    ids = _image_ids(texts)
    images = [image | {"id": ids[image["id"] - 1]} for image in images]
    annotations = [box | {"image_id": ids[box["image_id"] - 1]} for box in annotations]
    categories = [{"id": class_id, "name": name} for class_id, name in names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def most_boxes(files: Sequence[str]) -> int:
    """Returns the largest number of boxes in an image of the files.

    The number is read from `dataset.json` beside files that this project wrote; for other files, all
    records are read.
    """
    counts = _written_counts(files)
    if counts is not None:
        return counts
    most, index = 0, RecordIndex(files)
    for number in range(len(index)):
        try:
            most = max(most, len(parse_example(index.read(number), f"record {number + 1}").classes))
        except DamagedRecord:
            continue  # Damage is reported, or the record skipped, where the record is used.
    return most


def _written_counts(files: Sequence[str]) -> int | None:
    folders = {os.path.dirname(file) for file in files}
    path = os.path.join(next(iter(folders)), DATASET)
    if len(folders) != 1 or not _exists(path) or _is_remote(path):
        return None
    splits = read_dataset(path).get("splits")
    counts = {
        shard: split[MOST_BOXES]
        for split in (splits.values() if isinstance(splits, dict) else ())
        if isinstance(split, dict) and isinstance(split.get(MOST_BOXES), int)
        for shard in split.get("shards", ())
    }
    names = [os.path.basename(file) for file in files]
    return max(counts[name] for name in names) if names and all(name in counts for name in names) else None


def read_dataset(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the `dataset.json` of a folder of records; empty if another program wrote a file of that name.

    Raises:
      InputError: the file is missing, is not JSON, or has a schema version that is not read.
    """
    content = text_files.read_json(path, "data set record")
    if not isinstance(content, dict):
        return {}
    try:
        text_files.check_version(content, DATASET_VERSION, absent=1)
    except InputError as error:
        raise InputError(f"data set record {str(path)!r}: {error}") from error
    return content


def require_decodable(files: Sequence[str]) -> None:
    """Raises CheckFailed with the name of the first image that the decoder used in training rejects.

    Called after that decoder has failed, because its message does not name the image.
    """
    from mobiledets_tf.compat import tf

    index = RecordIndex(files)
    for number in range(len(index)):
        try:
            example = parse_example(index.read(number), f"record {number + 1}")
        except DamagedRecord:
            continue
        try:
            tf.io.decode_image(example.encoded, channels=3, expand_animations=False)
        except tf.errors.OpError as error:
            raise CheckFailed(
                f"image {example.image_id!r} (record {number + 1} of {os.path.dirname(files[0])!r}) cannot "
                f"be decoded: {error.message.splitlines()[0]}; mobiledets-data --mode=convert re-encodes "
                "such images"
            ) from error


def coco_category_ids(files: Sequence[str], names: dict[int, str]) -> dict[int, int]:
    """Maps class ids to the category ids in `dataset.json`; ids that are not listed there are kept."""
    path = Path(os.path.dirname(files[0]) if files else "", "dataset.json")
    ids = {class_id: class_id for class_id in names}
    if not path.is_file():
        return ids
    categories = read_dataset(path).get("categories")
    for category in categories if isinstance(categories, list) else []:
        if isinstance(category, dict) and all(type(category.get(key)) is int for key in ("id", "coco_id")):
            known = names.get(category["id"])
            if known is not None and known.split() == str(category.get("name")).split():
                ids[category["id"]] = category["coco_id"]
    return ids


def coco_boxes(example: Example, image_id: int, before: int) -> list[dict[str, Any]]:
    """Converts the boxes of an example to COCO annotations, numbered from `before` + 1."""
    size = np.array([example.height, example.width] * 2, np.float64)
    return [
        {
            "id": before + index + 1,
            "image_id": image_id,
            "category_id": int(class_id),
            "bbox": [left, top, right - left, bottom - top],
            "area": float(area),
            "iscrowd": int(crowd),
        }
        for index, ((top, left, bottom, right), class_id, area, crowd) in enumerate(
            zip((example.boxes * size).tolist(), example.classes, example.area, example.is_crowd, strict=True)
        )
    ]


def _image_ids(texts: Sequence[str]) -> list[int]:
    """Returns integer ids for images from their `image/source_id`; an empty text is not an id."""
    seen: set[str] = set()
    for text in filter(None, texts):
        if text in seen:
            raise InputError(f"image/source_id {text} occurs twice; are the same files given twice?")
        seen.add(text)
    numeric = all(text.isascii() and text.isdigit() and int(text) < 2**63 for text in texts)
    ids = [int(text) for text in texts] if numeric else []
    return ids if len(set(ids)) == len(texts) else list(range(1, len(texts) + 1))


def _parse(feature: Any) -> Example:
    classes = np.array(feature["image/object/class/label"].int64_list.value, np.int64)
    boxes = np.stack([np.array(feature[key].float_list.value, np.float32) for key in _BOX_KEYS], axis=-1)
    if len(boxes) != len(classes):
        raise ValueError(f"it has {len(boxes)} boxes but {len(classes)} classes")
    height, width = (_one(feature[f"image/{key}"].int64_list.value, key) for key in ("height", "width"))
    crowd = feature["image/object/is_crowd"].int64_list.value
    area = feature["image/object/area"].float_list.value
    names = feature["image/object/class/text"].bytes_list.value
    return Example(
        image_id=_text_of(feature, "image/source_id") or _text_of(feature, "image/filename"),
        encoded=_one(feature["image/encoded"].bytes_list.value, "encoded"),
        height=height,
        width=width,
        boxes=boxes,
        classes=classes,
        names=tuple(name.decode("utf-8", "replace") for name in names),
        # Both keys are optional in the API. The defaults are no crowd, and the area of the box.
        is_crowd=np.array(crowd, bool) if crowd else np.zeros(len(classes), bool),
        area=np.array(area, np.float32) if area else _box_areas(boxes, height, width),
    )


def _text_of(feature: Any, key: str) -> str:
    """Returns a text, or '' if it is missing, which the API allows."""
    values = feature[key].bytes_list.value
    return values[0].decode("utf-8", "replace") if values else ""


def _one(values: Sequence[Any], key: str) -> Any:
    if len(values) != 1:
        raise ValueError(f"image/{key} should have one value, not {len(values)}")
    return values[0]


def _box_areas(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * np.float32(height * width)


def _require_whole_set(found: Sequence[str], split: str) -> None:
    """Raises InputError unless the shards of a split are complete and from one conversion."""
    names = {os.path.basename(file) for file in found}
    if names != {shard_name(split, index, len(names)) for index in range(len(names))}:
        raise InputError(
            f"shards of {split!r} are missing or come from two conversions: {', '.join(sorted(names)[:4])}..."
        )


# --- paths: local ones are handled without TensorFlow, so that a wrong path fails at once ------


def _is_remote(path: str) -> bool:
    return "://" in path


def _gfile() -> Any:
    from mobiledets_tf.compat import tf

    return tf.io.gfile


def _is_folder(path: str) -> bool:
    return _gfile().isdir(path) if _is_remote(path) else os.path.isdir(path)


def _exists(path: str) -> bool:
    return _gfile().exists(path) if _is_remote(path) else os.path.exists(path)


def _glob(pattern: str) -> list[str]:
    return _gfile().glob(pattern) if _is_remote(pattern) else glob.glob(pattern)


def _glob_escape(folder: str) -> str:
    return folder if _is_remote(folder) else glob.escape(folder)


def _read_text(path: str) -> str:
    if not _is_remote(path):
        return text_files.read_text(path, "label map")
    try:
        with _gfile().GFile(path) as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read label map {path!r}: {error}") from error


@functools.lru_cache(maxsize=1)
def _label_map_class() -> Any:
    """Builds the API's StringIntLabelMap message class without importing the API, and so TensorFlow."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="label_map.proto", package="mobiledets", syntax="proto2")
    item = file.message_type.add(name="Item")
    for number, (name, kind) in enumerate(
        (("name", field.TYPE_STRING), ("id", field.TYPE_INT32), ("display_name", field.TYPE_STRING)), start=1
    ):
        item.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
    label_map = file.message_type.add(name="LabelMap")
    label_map.field.add(
        name="item",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".mobiledets.Item",
        label=field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mobiledets.LabelMap"))
