"""Shared parts of the format readers: find files and images in a folder, build COCO content from boxes."""

import dataclasses
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mobiledets_tf.data import coco, image_files
from mobiledets_tf.data.text import show
from mobiledets_tf.errors import InputError

_SPLITS = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}
TRAIN = "train"


def files_below(folder: Path, *suffixes: str) -> list[Path]:
    """Lists the files with the given suffixes in and below a folder, in order.

    Hidden files, and links to files outside the folder, are skipped.
    """
    if folder.is_file():
        return [folder] if folder.suffix.lower() in suffixes else []
    root = folder.resolve()
    found = []
    for inside, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(inside, name)
            if path.suffix.lower() in suffixes and not name.startswith("."):
                if path.is_file() and path.resolve().is_relative_to(root):
                    found.append(path)
    return found


def read_text(path: Path) -> str:
    """Reads a small text file.

    Raises:
      Damaged: the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Damaged(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Damaged(f"is not UTF-8 text: {error.reason}") from error


class Damaged(Exception):
    """Raised when an annotation file, or a part of it, cannot be used; the message is the reason."""


def split_of(path: str | os.PathLike, folder: str | os.PathLike | None = None) -> str | None:
    """Returns `train`, `val` or `test` if a folder or a word in the file name says so, otherwise None."""
    inside = os.path.relpath(path, folder) if folder is not None else os.fspath(path)
    parts = [part.lower() for part in Path(inside).parts]
    for part in parts[:-1]:
        if name := _SPLITS.get(re.sub(r"\d+$", "", part)):
            return name
    words = re.split(r"[^a-z]+", parts[-1]) if parts else []
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


class Images:
    """Finds images by the names used in annotations.

    Args:
      folder: folder of the images, which may be in subfolders.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.names = sorted(image_files.Folder(folder).names())
        self._by_base: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._by_base[os.path.basename(name)].append(name)
            self._by_stem[os.path.splitext(os.path.basename(name))[0]].append(name)
        self._known = set(self.names)

    def find(self, name: str, beside: Path | None = None) -> str | None:
        """Returns the path of an image relative to the folder, or None if it is missing or ambiguous.

        If the path does not exist, as with paths of another machine, only its last part counts. Of
        several images with the same name, the one is chosen that shares the most folder names with
        `name` and with the annotation file `beside`.
        """
        name = name.replace("\\", "/")
        plain = os.path.normpath(name) if name else ""
        if plain in self._known:
            return plain
        return self._choose(self._by_base.get(os.path.basename(plain), ()), plain, beside)

    def of_stem(self, stem: str, beside: Path | None = None) -> str | None:
        """Returns the image whose file name without suffix is `stem`, or None; chooses as `find`."""
        return self._choose(self._by_stem.get(stem, ()), "", beside)

    def _choose(self, found: Sequence[str], name: str, beside: Path | None) -> str | None:
        if len(found) < 2:
            return found[0] if found else None
        wanted = Path(name).parts[:-1]
        if beside is not None:
            inside = os.path.relpath(beside, self.folder)
            wanted = (*wanted, *Path(inside).parts[:-1])
        scores = [len(set(wanted) & set(Path(each).parts[:-1])) for each in found]
        best = max(scores)
        return found[scores.index(best)] if scores.count(best) == 1 else None

    def size(self, name: str) -> tuple[int, int] | None:
        """Returns (width, height) in pixels of the upright image, or None if it cannot be read."""
        try:
            look = image_files.head(image_files.Folder(self.folder).read(name))
        except (image_files.PictureError, OSError):
            return None
        return look.upright_size


@dataclasses.dataclass(frozen=True)
class Listed(image_files.Folder):
    """A folder shared by several splits; lists no names, because the reader counts unused images itself."""

    def names(self) -> Iterator[str]:
        return iter(())


class Collector:
    """Collects the images and boxes of a data set by split and converts them to COCO content.

    Args:
      format_name: name of the format, for messages.
      source: file or folder of the annotations, for messages.
      images: the images of the data set.
    """

    def __init__(self, format_name: str, source: Path, images: Images):
        self._format, self._source, self.images = format_name, source, images
        self._entries: dict[str, tuple[list[dict], list[dict]]] = defaultdict(lambda: ([], []))
        self._faults: dict[str, list[coco.Fault]] = defaultdict(list)
        self._used: set[str] = set()
        self.notes: Counter[str] = Counter()
        self._next_id = 1
        self._class_ids: dict[str, int] = {}

    def fault(self, file: Path | str, entry: str, reason: str, split: str = TRAIN) -> None:
        """Records a fault in an entry that cannot be used."""
        self._faults[split].append(coco.Fault(str(file), entry, reason))

    def image(
        self,
        split: str,
        file_name: str,
        size: tuple[Any, Any] | None,
        where: tuple[str, str],
        group: str = "",
    ) -> int:
        """Adds an image; returns its id.

        Args:
          split: split of the image.
          file_name: path relative to the folder of images.
          size: annotated (width, height) in pixels; if it is None or has None or 0, the size is read
            from the file.
          where: annotation file and place in it, for messages.
          group: name of the group whose images have to stay together when a split is divided.
        """
        if size is None or size[0] in (None, 0) or size[1] in (None, 0):
            size = self.images.size(file_name) or (1, 1)
            self.notes["images without a size in the annotations; the size of the file is used"] += 1
        self._used.add(os.path.normpath(file_name))
        image_id = self._next_id
        entry: dict[object, Any] = {
            "id": image_id,
            "file_name": file_name,
            "width": size[0],
            "height": size[1],
        }
        entry |= {"group": group} if group else {}
        entry[coco.WHERE] = where
        self._entries[split][0].append(entry)
        self._next_id += 1
        return image_id

    def box(
        self,
        split: str,
        image_id: int,
        class_name: str,
        bbox: Sequence[Any],
        where: tuple[str, str],
        **more: Any,
    ) -> None:
        """Adds a box [x, y, width, height] in pixels; it is validated later, by the checks."""
        annotations = self._entries[split][1]
        category_id = self._class_ids.setdefault(class_name, len(self._class_ids))
        entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_id}
        annotations.append(entry | {"bbox": list(bbox), coco.WHERE: where} | more)

    def splits(self, classes: Sequence[str] | None = None) -> list[coco.Split]:
        """Returns the splits; `classes` come first in the given order, all others follow alphabetically.

        Raises:
          InputError: nothing was collected.
        """
        if not self._entries and not any(self._faults.values()):
            raise InputError(f"{str(self._source)!r} contains no images with annotations of {self._format}")
        found = sorted(self._class_ids)
        names = [*classes, *(name for name in found if name not in set(classes))] if classes else found
        ids = {name: number for number, name in enumerate(names, 1)}
        numbers = {number: ids[name] for name, number in self._class_ids.items()}
        unused = [name for name in self.images.names if os.path.normpath(name) not in self._used]
        notes = [f"{what}: {count}" for what, count in self.notes.items()]
        if unused:
            more = ", ..." if len(unused) > 1 else ""
            notes.append(f"images without annotations, not used: {len(unused)} ({show(unused[0])}{more})")
        categories = [{"id": number, "name": name} for name, number in ids.items()]
        result = []
        for split in sorted(self._entries.keys() | self._faults.keys()):
            images, annotations = self._entries[split]
            content = {
                "images": images,
                "annotations": [box | {"category_id": numbers[box["category_id"]]} for box in annotations],
                "categories": categories,
            }
            result.append(
                coco.Split(
                    split,
                    self.images.folder,
                    self._source,
                    content,
                    Listed(self.images.folder),
                    tuple(self._faults[split]),
                    tuple(notes),
                )
            )
            notes = []
        return result


def number(text: Any) -> Any:
    """Converts a text to a number; any other text is returned unchanged and reported by the checks."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return text
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def enclosing(points: Iterable[Sequence[Any]]) -> list[float] | None:
    """Returns the box [x, y, width, height] around points, or None without points or for non-numbers."""
    points = list(points)
    try:
        xs, ys = zip(*((float(x), float(y)) for x, y in points), strict=True)
    except (TypeError, ValueError):
        return None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def corners(values: Sequence[Any]) -> list[Any]:
    """Converts (left, top, right, bottom) to [x, y, width, height].

    If any of them is not a number, the four values are returned as they are and reported by the checks.
    """
    left, top, right, bottom = (number(value) for value in values)
    if not all(isinstance(value, (int, float)) for value in (left, top, right, bottom)):
        return [left, top, right, bottom]
    return [left, top, right - left, bottom - top]
