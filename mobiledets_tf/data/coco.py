"""Reads COCO instance annotations from untrusted JSON into small dataclasses and reports every fault.

A data folder contains `instances_SPLIT.json` and the images of that split in `SPLIT/`. Only
boxes are read; segmentations and other keys are ignored. Gaps between ids, crowd boxes and
images without boxes are normal.
"""

import dataclasses
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobiledets_tf import files
from mobiledets_tf.data.image_files import Folder
from mobiledets_tf.data.text import show
from mobiledets_tf.errors import InputError

# Annotation tools round, and even COCO's own boxes extend up to a pixel beyond the image. Boxes that
# extend by at most this many pixels are clipped when read; boxes that extend further are faults.
BORDER_TOLERANCE = 1.0
# Shortest side of a box in pixels. Training uses the logarithms of the sides, and thinner boxes are
# slips of the mouse.
MIN_SIDE = 0.01
MAX_ID = 2**63 - 1
MAX_SIDE = 65535  # largest side of a JPEG in pixels
MAX_AREA = 1e10  # pixels^2; no COCO metric counts larger boxes

# Key under which an entry read from another format stores (file, place in the file). Being an object,
# it cannot occur in JSON.
WHERE = object()
# Key that marks an image whose EXIF orientation must not be applied.
AS_STORED = object()

_SPLIT_FILE = re.compile(r"instances_([A-Za-z0-9_]+)\.json")


@dataclass(frozen=True)
class Split:
    """Location of one split.

    Attributes:
      name: `train`, `val`, ...
      images: folder of the split's images.
      annotations: path of the annotation file, or of its equivalent in another format.
      content: the COCO object if it was converted from another format; None reads it from the file.
      pictures: object that reads images by name; None reads them from the folder.
      faults: faults found while `content` was made.
      notes: remarks on how the split was read, one line each.
    """

    name: str
    images: Path
    annotations: Path
    content: dict[str, Any] | None = dataclasses.field(default=None, compare=False, repr=False)
    pictures: Any = dataclasses.field(default=None, compare=False, repr=False)
    faults: tuple["Fault", ...] = dataclasses.field(default=(), compare=False, repr=False)
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)

    def read_picture(self, file_name: str) -> bytes:
        """Reads the bytes of an image file; raises as `image_files.Folder.read`."""
        return (self.pictures or Folder(self.images)).read(file_name)


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
      id: id in the annotation file.
      file_name: path relative to the folder of images.
      width, height: size in pixels of the image in the orientation that the boxes refer to.
      group: name of the group (a video, a scene) whose images have to stay together when a split is
        divided; '' for none.
      as_stored: whether an EXIF orientation in the file must not be applied.
    """

    id: int
    file_name: str
    width: int
    height: int
    group: str = ""
    as_stored: bool = False


@dataclass(frozen=True)
class Annotation:
    """One box: `bbox` is (x, y, width, height) in pixels, inside its image; `area` is in pixels^2."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    is_crowd: bool


@dataclass(frozen=True)
class Category:
    """One class with its id in the annotation file; `supercategory` may be ''."""

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True)
class Dataset:
    """The valid entries of an annotation file, in the order of the file; categories are sorted by id."""

    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]

    def by_image(self) -> dict[int, list[Annotation]]:
        """Maps each image id to the image's boxes; images without boxes have an empty list."""
        boxes: dict[int, list[Annotation]] = {image.id: [] for image in self.images}
        for annotation in self.annotations:
            boxes[annotation.image_id].append(annotation)
        return boxes


@dataclass(frozen=True)
class Fault:
    """One fault in the data: the file, the faulty entry in it, and the reason."""

    file: str
    entry: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.entry}: {self.reason}"


def find_splits(images: str | os.PathLike, annotations: str | os.PathLike | None = None) -> list[Split]:
    """Returns the split that both paths name, or all splits of a data folder if only `images` is given.

    Raises:
      InputError: a path does not exist, or the folder contains no `instances_*.json`.
    """
    images = Path(images)
    if not images.is_dir():
        raise InputError(f"--images={str(images)!r} is not a folder")
    if annotations is not None:
        return [_split(Path(annotations), images)]
    found = sorted(path for path in images.iterdir() if _SPLIT_FILE.fullmatch(path.name))
    if not found:
        raise InputError(
            f"{str(images)!r} contains no instances_*.json; give a data folder, or the folder of images "
            "with --annotations=FILE.json"
        )
    return [_split(path, images / split_name(path)) for path in found]


def load(split: Split, sizes: Mapping[int, tuple[int, int]] | None = None) -> tuple[Dataset, list[Fault]]:
    """Reads and checks an annotation file; the images themselves are not opened.

    Args:
      split: location of the split.
      sizes: maps image ids to (width, height) in pixels, which replace the sizes in the file.

    Returns:
      The valid entries, and the faults of the others.

    Raises:
      InputError: the file is not a JSON object, or has no images, no categories or no boxes at all.
    """
    path = str(split.annotations)
    value = files.read_json(path, "annotation file") if split.content is None else split.content
    if not isinstance(value, dict):
        raise InputError(f"annotation file {path!r} should be a JSON object, not {_kind(value)}")
    for key in ("images", "categories", "annotations"):
        if value.get(key) == [] and not split.faults:
            raise InputError(f"annotation file {path!r} is an empty data set: it has no {key}")
    dataset, faults = _Reader(path, sizes or {}).read(value)
    return dataset, [*split.faults, *faults]


def is_split_file(path: Path) -> bool:
    """Returns whether a file is named instances_SPLIT.json."""
    return _SPLIT_FILE.fullmatch(path.name) is not None


def split_name(path: Path) -> str:
    """Returns SPLIT of a file named instances_SPLIT.json."""
    return path.stem.removeprefix("instances_")


def _split(annotations: Path, images: Path) -> Split:
    name = _SPLIT_FILE.fullmatch(annotations.name)
    if not name:
        raise InputError(
            f"annotation file {str(annotations)!r} should be named instances_SPLIT.json, "
            "for example instances_train.json"
        )
    if not annotations.is_file():
        raise InputError(f"annotation file {str(annotations)!r} does not exist")
    if not images.is_dir():
        raise InputError(f"folder {str(images)!r} with the images of {annotations.name} does not exist")
    return Split(name[1], images, annotations)


class _Wrong(Exception):
    """Raised when an entry cannot be used; the message is the reason."""


class _Reader:
    """Reads one annotation file, collecting faults."""

    def __init__(self, file: str, sizes: Mapping[int, tuple[int, int]]):
        self._file, self._sizes = file, sizes
        self.faults: list[Fault] = []

    def read(self, value: dict[str, Any]) -> tuple[Dataset, list[Fault]]:
        categories = self._entries(value, "categories", "category", read_category, unique="name")
        images = self._entries(value, "images", "image", self._image, unique="file_name")
        annotations = self._entries(
            value, "annotations", "annotation", lambda entry: read_annotation(entry, images, categories)
        )
        # A box of a faulty image or category is dropped along with it, but is not a fault of its own.
        whole = (a for a in _sound(annotations) if images[a.image_id] and categories[a.category_id])
        ordered = sorted(_sound(categories), key=lambda category: category.id)
        return Dataset(_sound(images), tuple(whole), tuple(ordered)), self.faults

    def _image(self, entry: dict[str, Any]) -> Image:
        image = read_image(entry)
        width, height = self._sizes.get(image.id, (image.width, image.height))
        return dataclasses.replace(image, width=width, height=height)

    def _entries(
        self, value: dict[str, Any], key: str, noun: str, read: Callable[[dict], Any], unique: str = "id"
    ) -> dict[int, Any]:
        """Maps ids to entries, or None for a faulty one; ids and the values of `unique` must not repeat."""
        found: dict[int, Any] = {}
        seen: dict[tuple[str, Any], Any] = {}
        for index, entry in enumerate(self._list(value, key)):
            try:
                item = read(_object(entry))
                for field in dict.fromkeys(("id", unique)):
                    _first(field, getattr(item, field), seen)
                found[item.id] = item
            except _Wrong as wrong:
                entry_id = _readable_id(entry)
                if entry_id is not None:
                    found.setdefault(entry_id, None)
                name = f"{key}[{index}]" if entry_id is None else f"{noun} {entry_id}"
                where = entry.get(WHERE) if isinstance(entry, dict) else None
                file, place = where or (self._file, name)
                self.faults.append(Fault(file, place, str(wrong)))
        return found

    def _list(self, value: dict[str, Any], key: str) -> Iterator[Any]:
        entries = value.get(key)
        if isinstance(entries, list):
            yield from entries
        elif key in value:
            self.faults.append(Fault(self._file, key, f"should be a list, not {_kind(entries)}"))
        else:
            self.faults.append(Fault(self._file, key, "this key is missing"))


def read_category(entry: dict[str, Any]) -> Category:
    category_id, name = _id(entry, "id"), _text(entry, "name")
    # labels.txt contains one label per line.
    if not name.strip() or len(name.splitlines()) > 1 or any(ord(letter) < 32 for letter in name):
        raise _Wrong(f"'name' {show(name)} is empty or contains control characters")
    parent = entry.get("supercategory", "")
    return Category(category_id, name, parent if isinstance(parent, str) else "")


def read_image(entry: dict[str, Any]) -> Image:
    return Image(
        id=_id(entry, "id"),
        file_name=_text(entry, "file_name"),
        width=_integer(entry, "width", 1, MAX_SIDE),
        height=_integer(entry, "height", 1, MAX_SIDE),
        group=entry.get("group", "") if isinstance(entry.get("group", ""), str) else "",
        as_stored=AS_STORED in entry,
    )


def read_annotation(
    entry: dict[str, Any], images: dict[int, Image | None], categories: dict[int, Category | None]
) -> Annotation:
    annotation_id, image_id, category_id = (_id(entry, key) for key in ("id", "image_id", "category_id"))
    if image_id not in images:
        raise _Wrong(f"'image_id' {image_id} is unknown: no image has it")
    if category_id not in categories:
        raise _Wrong(f"'category_id' {category_id} is unknown: no category has it")
    bbox = _box(entry, images[image_id])
    area = _number(entry["area"], "'area'") if "area" in entry else bbox[2] * bbox[3]
    if not 0 <= area <= MAX_AREA:
        raise _Wrong(f"'area' should be from 0 to {MAX_AREA:g}, not {area:g}")
    return Annotation(annotation_id, image_id, category_id, bbox, area, _is_crowd(entry))


def _box(entry: dict[str, Any], image: Image | None) -> tuple[float, float, float, float]:
    """Reads a box; clips it to its image (if known) where it extends beyond it within the tolerance."""
    value = _required(entry, "bbox")
    if not isinstance(value, list) or len(value) != 4:
        raise _Wrong(f"'bbox' should be four numbers [x, y, width, height], not {show(value)}")
    x, y, width, height = (_number(number, "'bbox'") for number in value)
    if width < MIN_SIDE or height < MIN_SIDE:
        raise _Wrong(f"'bbox' {show(value)} has no area")
    return _clip((x, y, x + width, y + height), image) if image else (x, y, width, height)


def _clip(corners: tuple[float, float, float, float], image: Image) -> tuple[float, float, float, float]:
    """Converts (left, top, right, bottom) to (x, y, width, height), clipped to the image."""
    bounds = (image.width, image.height) * 2
    shown = ", ".join(f"{corner:g}" for corner in corners)
    place = f"image {image.id} of {image.width}x{image.height}"
    if any(
        not -BORDER_TOLERANCE <= corner <= bound + BORDER_TOLERANCE
        for corner, bound in zip(corners, bounds, strict=True)
    ):
        raise _Wrong(f"'bbox' with corners ({shown}) is outside {place}{_corners_hint(corners, bounds)}")
    left, top, right, bottom = (
        min(max(corner, 0.0), float(bound)) for corner, bound in zip(corners, bounds, strict=True)
    )
    if right - left < MIN_SIDE or bottom - top < MIN_SIDE:
        raise _Wrong(f"'bbox' with corners ({shown}) has no area inside {place}")
    return left, top, right - left, bottom - top


def _corners_hint(corners: tuple[float, float, float, float], bounds: tuple[int, ...]) -> str:
    """Returns a hint if the numbers of a box fit its image as (left, top, right, bottom), otherwise ''."""
    left, top, right, bottom = corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]
    fits = 0 <= left < right <= bounds[0] and 0 <= top < bottom <= bounds[1]
    return "; 'bbox' should be [x, y, width, height], but looks like two corners" if fits else ""


def _is_crowd(entry: dict[str, Any]) -> bool:
    value = entry.get("iscrowd", 0)
    # Tools that keep annotations in tables may write whole numbers as 0.0 and 1.0.
    if not isinstance(value, (int, float)) or value not in (0, 1):
        raise _Wrong(f"'iscrowd' should be 0 or 1, not {show(value)}")
    return bool(value)


def _first(field: str, value: Any, seen: dict[tuple[str, Any], Any]) -> None:
    """Raises _Wrong if a field's value, or an equivalent one, occurred before."""
    key = (field, _comparable(field, value))
    if key in seen:
        before = seen[key]
        alike = "" if before == value else f" as {show(before)}"
        raise _Wrong(f"'{field}' {show(value)} was already used{alike}")
    seen[key] = value


def _comparable(field: str, value: Any) -> Any:
    """Normalises a file path, or the white space and Unicode form of a class name, for comparison."""
    if field == "name":
        return same_name(value)
    return os.path.normpath(value) if isinstance(value, str) and "/" in value else value


def same_name(name: str) -> str:
    """Normalises white space and Unicode form of a class name; equal results mean the same class."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def _object(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise _Wrong(f"should be an object, not {_kind(entry)}")
    return entry


def _required(entry: dict[str, Any], key: str) -> Any:
    if key not in entry:
        raise _Wrong(f"'{key}' is missing")
    return entry[key]


def _text(entry: dict[str, Any], key: str) -> str:
    value = _required(entry, key)
    if not isinstance(value, str):
        raise _Wrong(f"'{key}' should be text, not {show(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _Wrong(f"'{key}' {show(value)} is not valid Unicode") from None
    return value


def _id(entry: dict[str, Any], key: str) -> int:
    return _integer(entry, key, 0, MAX_ID)


def _integer(entry: dict[str, Any], key: str, low: int, high: int) -> int:
    value = _required(entry, key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Wrong(f"'{key}' should be a whole number, not {show(value)}")
    if not low <= value <= high:
        raise _Wrong(f"'{key}' should be from {low} to {high}, not {show(value)}")
    return value


def _number(value: Any, what: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _Wrong(f"{what} should contain only numbers, not {show(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Wrong(f"{what} contains {show(value)}, which is not a finite number")
    return number


def _readable_id(entry: Any) -> int | None:
    try:
        return _id(_object(entry), "id")
    except _Wrong:
        return None


def _sound(entries: dict[int, Any]) -> tuple[Any, ...]:
    return tuple(entry for entry in entries.values() if entry is not None)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
