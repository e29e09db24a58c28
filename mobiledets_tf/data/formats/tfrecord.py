"""Reads TFRecords of Object Detection API data sets written by other programs, with their label map."""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobiledets_tf.data import coco, image_files, records
from mobiledets_tf.data.formats.collecting import TRAIN, files_below, split_of
from mobiledets_tf.data.record_index import DamagedRecord, RecordIndex
from mobiledets_tf.data.text import show
from mobiledets_tf.errors import InputError

NAME, LOOKS_LIKE = "tfrecord", "TFRecord files (.record, .tfrecord) with a label map"
_WORDS = (".record", ".tfrecord", ".tfrecords", ".record-", ".tfrecord-", ".tfrecords-")


def _files(place: Path) -> list[Path]:
    folder = place if place.is_dir() else place.parent
    suffixes = {path.suffix for path in ([place] if place.is_file() else place.rglob("*")) if path.suffix}
    found = files_below(folder if place.is_dir() else place, *(suffix.lower() for suffix in suffixes))
    return [path for path in found if any(word in path.name or path.name.endswith(word) for word in _WORDS)]


def recognises(place: Path) -> bool:
    """Returns whether a file or folder contains annotations of this format."""
    return bool(_files(place))


@dataclass(frozen=True)
class Pictures:
    """The images in TFRecords, addressed by the names that `_read_split` assigned to them."""

    index: RecordIndex
    numbers: dict[str, int]

    def read(self, file_name: str) -> bytes:
        """Returns the encoded image of a record; raises PictureError if it is missing or damaged."""
        if file_name not in self.numbers:
            raise image_files.PictureError(f"no record contains image {show(file_name)}")
        number = self.numbers[file_name]
        try:
            return records.parse_example(self.index.read(number), f"record {number + 1}").encoded
        except InputError as error:
            raise image_files.PictureError(str(error)) from error

    def names(self) -> Iterator[str]:
        return iter(())


def read(folder: Path, place: Path) -> list[coco.Split]:
    """Reads the splits of a file or folder; `folder` is the one with the images."""
    by_split: dict[str, list[Path]] = defaultdict(list)
    for path in _files(place):
        by_split[split_of(path, place if place.is_dir() else None) or TRAIN].append(path)
    names = records.label_map_names(_label_map(folder, place))
    return [_read_split(name, paths, names) for name, paths in sorted(by_split.items())]


def _label_map(folder: Path, place: Path) -> Path:
    found = files_below(folder, ".pbtxt")
    beside = place if place.is_dir() else place.parent
    found += [path for path in files_below(beside, ".pbtxt") if path not in found]
    named = [path for path in found if path.name == records.LABEL_MAP] or found
    if len(named) != 1:
        raise InputError(f"{str(folder)!r} contains {len(named)} label maps (.pbtxt); exactly one is needed")
    return named[0]


def _read_split(name: str, paths: list[Path], names: dict[int, tuple[str, ...]]) -> coco.Split:
    index = RecordIndex([str(path) for path in paths])
    faults: list[coco.Fault] = []
    images: list[dict[object, Any]] = []
    boxes: list[dict[object, Any]] = []
    numbers: dict[str, int] = {}
    for number in range(len(index)):
        where = (str(paths[0]) if len(paths) == 1 else str(paths[0].parent), f"record {number + 1}")
        try:
            example = records.parse_example(index.read(number), where[1])
        except DamagedRecord as damaged:
            faults.append(coco.Fault(*where, str(damaged)))
            continue
        except InputError as error:
            faults.append(coco.Fault(*where, str(error).removeprefix(f"{where[1]} ")))
            continue
        file_name = _file_name(example.image_id, number)
        image_id = len(images) + 1
        # Boxes in records refer to the stored pixels, because the API's decoder ignores EXIF orientation.
        entry = {"id": image_id, "file_name": file_name, "width": example.width, "height": example.height}
        images.append(entry | {coco.WHERE: where, coco.AS_STORED: True})
        numbers[file_name] = number
        for box in records.coco_boxes(example, image_id, len(boxes)):
            boxes.append(box | {coco.WHERE: (where[0], f"{where[1]}, box")})
        faults += _text_faults(example, names, where)
    content: dict[str, Any] = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": number, "name": each[0]} for number, each in names.items()],
    }
    source = paths[0] if len(paths) == 1 else paths[0].parent
    return coco.Split(name, source.parent, source, content, Pictures(index, numbers), tuple(faults))


def _file_name(image_id: str, number: int) -> str:
    """Returns a file name that is not empty and contains no path."""
    plain = os.path.basename(image_id.replace("\\", "/")).strip()
    return plain if plain not in ("", ".", "..") else f"record_{number + 1}"


def _text_faults(
    example: records.Example, names: dict[int, tuple[str, ...]], where: tuple[str, str]
) -> list[coco.Fault]:
    """Returns a fault if a record names a class differently from the label map."""
    for number, text in zip(example.classes.tolist(), example.names, strict=False):
        allowed = names.get(number, ())
        if text and allowed and coco.same_name(text) not in map(coco.same_name, allowed):
            reason = f"class {number} is {show(text)} here and {show(allowed[0])} in the label map"
            return [coco.Fault(*where, reason)]
    return []
