"""Reads YOLO data sets: one text file per image, and a list of class names.

Each line of a text file is `class x y width height`, with numbers as fractions of the image. The
names are in data.yaml, classes.txt (labelImg) or a .names file (Darknet). Label files are beside
the images, or in `labels/` if the images are in `images/`.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobiledets_tf.data import coco
from mobiledets_tf.data.formats.collecting import (
    TRAIN,
    Collector,
    Damaged,
    Images,
    enclosing,
    files_below,
    read_text,
    split_of,
)
from mobiledets_tf.data.text import show
from mobiledets_tf.errors import InputError

NAME, LOOKS_LIKE = "yolo", "data.yaml or classes.txt with label files"
_NAME_FILES = ("classes.txt", "names.txt", "labels.txt", "_darknet.labels", "obj.names")
_KEYS = ("train", "val", "test")
# Fraction of the image by which a box may extend beyond it, because numbers are written with six digits.
_ROUNDING = 1e-4


def recognises(place: Path) -> bool:
    """Returns whether a file or folder contains annotations of this format."""
    if not place.is_dir():
        return False
    return _yaml(place) is not None or bool(_name_files(place)) and _has_label_files(place)


def _has_label_files(place: Path) -> bool:
    """Returns whether a text file is named after an image; many other folders contain a list of names."""
    stems = {os.path.splitext(os.path.basename(name))[0] for name in Images(place).names}
    return any(path.stem in stems for path in files_below(place, ".txt"))


def read(folder: Path, place: Path) -> list[coco.Split]:
    """Reads the splits of a file or folder; `folder` is the one with the images."""
    names, settings = _names(place if _has_names(place) else folder)
    images = Images(folder)
    collector = Collector(NAME, place, images)
    labels = {
        path.with_suffix(""): path
        for path in files_below(place, ".txt")
        if path.name not in _NAME_FILES
        and path.stem not in ("train", "val", "valid", "test", "README")
        and not path.name.startswith("README")
    }
    splits = _listed(folder, settings, images)
    used = set()
    for name in images.names:
        path = _label_path(name, folder, place, labels)
        split = splits.get(name) if splits else split_of(name) or TRAIN
        if split is None:
            collector.notes["images that data.yaml does not list, not used"] += 1
            continue
        size = images.size(name)
        image_id = collector.image(split, name, size or (1, 1), (name, "image"))
        if path is None:
            collector.notes["images without a label file, used as images without objects"] += 1
            continue
        used.add(path)
        if size is not None:
            _read_file(collector, split, image_id, path, size, names)
    strange = sorted(set(labels.values()) - used)
    for path in strange:
        collector.fault(path, "file", "there is no image with this name")
    return collector.splits(list(names.values()))


def _has_names(place: Path) -> bool:
    return place.is_dir() and (_yaml(place) is not None or bool(_name_files(place)))


def _read_file(
    collector: Collector, split: str, image_id: int, path: Path, size: tuple[int, int], names: dict[int, str]
) -> None:
    try:
        lines = read_text(path).splitlines()
    except Damaged as damaged:
        collector.fault(path, "file", str(damaged), split)
        return
    for index, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            class_id, bbox, is_polygon = _parse(line.split(), size)
            if class_id not in names:
                first = min(names, default=0)
                raise Damaged(
                    f"class {class_id} has no name; {len(names)} names are given, starting at {first}"
                )
        except Damaged as damaged:
            collector.fault(path, f"line {index}", str(damaged), split)
            continue
        if is_polygon:
            collector.notes["polygons; replaced by the boxes around them"] += 1
        collector.box(split, image_id, names[class_id], bbox, (str(path), f"line {index}"))


def _parse(parts: list[str], size: tuple[int, int]) -> tuple[int, list[float], bool]:
    """Parses a label line into (class, [x, y, width, height] in pixels, whether it was a polygon).

    Raises:
      Damaged: the line is not a valid label.
    """
    try:
        values = [float(part) for part in parts]
    except ValueError:
        raise Damaged(f"should contain only numbers, not {show(' '.join(parts))}") from None
    if not all(map(math.isfinite, values)):
        raise Damaged(f"contains a number that is not finite: {show(' '.join(parts))}")
    class_id, *rest = values
    if not class_id.is_integer() or class_id < 0:
        raise Damaged(f"class should be a whole number, not {parts[0][:40]}")
    if any(not -_ROUNDING <= value <= 1 + _ROUNDING for value in rest):
        raise Damaged(f"numbers should be fractions of the image (0 to 1), not {show(' '.join(parts[1:]))}")
    width, height = size
    if len(rest) == 4:
        x, y, across, down = rest
        box = [(x - across / 2) * width, (y - down / 2) * height, across * width, down * height]
        return int(class_id), box, False
    if len(rest) < 6 or len(rest) % 2:
        raise Damaged(f"should be 'class x y width height', not {len(parts)} numbers")
    points = zip(rest[::2], rest[1::2], strict=True)
    return int(class_id), enclosing((x * width, y * height) for x, y in points) or [], True


# --- names -------------------------------------------------------------------------------------


def _yaml(place: Path) -> Path | None:
    """Returns the .yaml file with class names in the folder itself (not below it), or None."""
    found = [path for path in files_below(place, ".yaml", ".yml") if path.parent == place]
    return next((path for path in found if isinstance(_yaml_value(path).get("names"), (list, dict))), None)


def _yaml_value(path: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(read_text(path))
    except (Damaged, yaml.YAMLError, RecursionError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _name_files(place: Path) -> list[Path]:
    known = [path for path in files_below(place, ".txt", ".labels", ".names") if path.name in _NAME_FILES]
    return known + [path for path in files_below(place, ".names") if path not in known]


def _names(place: Path) -> tuple[dict[int, str], dict[str, Any]]:
    """Returns class names by number, and the settings in data.yaml (empty without one).

    Raises:
      InputError: there are no names, the names are invalid, or two lists of names differ.
    """
    path = _yaml(place)
    if path is not None:
        settings = _yaml_value(path)
        given = settings["names"]
        items = enumerate(given) if isinstance(given, list) else given.items()
        names = {_number(path, number): str(name) for number, name in items}
        count = settings.get("nc", len(names))
        if count != len(names):
            raise InputError(f"{str(path)!r} sets nc to {show(count)} but lists {len(names)} names")
        return names, settings
    lists = {}
    for path in _name_files(place):
        try:
            lines = read_text(path).splitlines()
        except Damaged as damaged:
            raise InputError(f"list of names {str(path)!r} {damaged}") from damaged
        while lines and not lines[-1].strip():
            lines.pop()
        lists[path] = {number: line.strip() for number, line in enumerate(lines)}
    if not lists:
        raise InputError(f"{str(place)!r} contains no class names: data.yaml, classes.txt or a .names file")
    first, *others = lists
    for other in others:
        if lists[other] != lists[first]:
            raise InputError(f"lists of names differ: {str(first)!r} and {str(other)!r}")
    return lists[first], {}


def _number(path: Path, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    raise InputError(f"{str(path)!r}: class keys should be whole numbers, not {show(value)}")


# --- label files and splits of images ----------------------------------------------------------


def _label_path(name: str, folder: Path, place: Path, labels: dict[Path, Path]) -> Path | None:
    """Returns an image's label file, which is beside it or in `labels/` in place of `images/`, or None."""
    stem = os.path.splitext(name)[0]
    parts = Path(stem).parts
    candidates = [folder / stem, place / stem, place / Path(stem).name]
    for index, part in enumerate(parts[:-1]):
        if part == "images":
            candidates.append(folder.joinpath(*parts[:index], "labels", *parts[index + 1 :]))
            candidates.append(place.joinpath(*parts[index + 1 :]))
    candidates.append(folder / "labels" / stem)
    return next((labels[path] for path in candidates if path in labels), None)


def _listed(folder: Path, settings: dict[str, Any], images: Images) -> dict[str, str]:
    """Maps images to the splits whose folders or list files data.yaml names, all within the data folder."""
    found: dict[str, str] = {}
    root = settings.get("path")
    root = root if isinstance(root, str) else ""
    for key in _KEYS:
        given = settings.get(key, settings.get("valid") if key == "val" else None)
        for text in given if isinstance(given, list) else [given]:
            if isinstance(text, str) and text:
                for name in _images_of(folder, root, text, images):
                    found.setdefault(name, key)
    return found


def _images_of(folder: Path, root: str, text: str, images: Images) -> Iterator[str]:
    for inside in _places(root, text):
        path = folder / inside
        if path.is_dir():
            prefix = "" if inside == "." else inside + os.sep
            yield from (name for name in images.names if name.startswith(prefix))
            return
        if path.is_file() and path.suffix == ".txt" and path.resolve().is_relative_to(folder.resolve()):
            try:
                lines = read_text(path).splitlines()
            except Damaged:
                return
            yield from filter(None, (images.find(line.strip()) for line in lines if line.strip()))
            return


def _places(root: str, text: str) -> Iterator[str]:
    """Yields the places in the data folder that a path in data.yaml may refer to, likeliest first.

    Such paths may come from the machine that wrote the file, or be relative to a folder other than
    the file's own.
    """
    for path in (os.path.join(root, text), text):
        parts = [part for part in Path(path.replace("\\", "/")).parts if part not in ("..", ".", os.sep)]
        for start in range(len(parts)):
            yield os.path.join(*parts[start:])
    if not [part for part in Path(text).parts if part not in ("..", ".")]:
        yield "."
