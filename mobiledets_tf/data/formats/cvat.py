"""Reads the formats "CVAT for images" and "CVAT for video": one XML file with <annotations>."""

import math
from pathlib import Path
from xml.etree.ElementTree import Element

from mobiledets_tf.data import coco
from mobiledets_tf.data.formats import xml_files
from mobiledets_tf.data.formats.collecting import (
    TRAIN,
    Collector,
    Damaged,
    Images,
    corners,
    enclosing,
    files_below,
    number,
    split_of,
)

NAME, LOOKS_LIKE = "cvat", "an XML file with <annotations>"
_SIDES = ("xtl", "ytl", "xbr", "ybr")


def recognises(place: Path) -> bool:
    """Returns whether a file or folder contains annotations of this format."""
    return any(xml_files.root_tag(path) == "annotations" for path in files_below(place, ".xml"))


def read(folder: Path, place: Path) -> list[coco.Split]:
    """Reads the splits of a file or folder; `folder` is the one with the images."""
    collector = Collector(NAME, place, Images(folder))
    classes: dict[str, None] = {}
    for path in files_below(place, ".xml"):
        if xml_files.root_tag(path) != "annotations":
            continue
        try:
            root = xml_files.root_of(path)
        except Damaged as damaged:
            collector.fault(path, "file", str(damaged))
            continue
        for label in root.iterfind("meta//label/name"):
            if label.text and label.text.strip():
                classes[label.text.strip()] = None
        for item in root.iter("image"):
            _read_image(collector, path, item)
        _read_tracks(collector, path, root)
    return collector.splits(list(classes))


def _read_image(collector: Collector, path: Path, item: Element) -> None:
    given = item.get("name") or ""
    where = (str(path), f"image {item.get('id') or given!r}")
    split = split_of(f"{item.get('subset') or ''}/x") or split_of(given) or TRAIN
    size = (number(item.get("width")), number(item.get("height")))
    image_id = collector.image(split, collector.images.find(given) or given, size, where)
    for index, shape in enumerate(item, 1):
        place = (where[0], f"{where[1]}, shape {index}")
        _add(collector, split, image_id, shape.get("label") or "", shape, place)


def _add(
    collector: Collector, split: str, image_id: int, label: str, shape: Element, where: tuple[str, str]
) -> None:
    if shape.tag == "box":
        bbox = corners([shape.get(side) for side in _SIDES])
        turn = number(shape.get("rotation") or 0)
        if turn and isinstance(turn, (int, float)) and math.isfinite(turn):
            collector.notes["rotated boxes; replaced by the upright boxes around them"] += 1
            bbox = turned(bbox, turn) or bbox
    elif shape.tag in ("polygon", "polyline") and (points := shape.get("points")):
        collector.notes["polygons; replaced by the boxes around them"] += 1
        bbox = enclosing(_points(points)) or [points]
    elif shape.tag in ("tag", "attribute"):
        return
    else:
        collector.notes[f"shapes of type {shape.tag[:30]!r}, not used"] += 1
        return
    collector.box(split, image_id, label, bbox, where)


def _points(text: str) -> list[tuple[str, ...]]:
    return [tuple(pair.split(",")) for pair in text.split(";") if pair]


def turned(bbox: list, degrees: float) -> list[float] | None:
    """Returns the axis-aligned box around a box rotated about its centre, or None for invalid numbers."""
    try:
        x, y, width, height = map(float, bbox)
    except (TypeError, ValueError):
        return None
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    new_width, new_height = width * cosine + height * sine, width * sine + height * cosine
    return [x + (width - new_width) / 2, y + (height - new_height) / 2, new_width, new_height]


def _read_tracks(collector: Collector, path: Path, root: Element) -> None:
    """Reads the boxes of a video by frame; all its exported images form one group."""
    frames: dict[int, list[tuple[str, Element]]] = {}
    for track in root.iter("track"):
        for shape in track:
            frame = number(shape.get("frame"))
            if shape.get("outside") != "1" and isinstance(frame, int) and frame >= 0:
                frames.setdefault(frame, []).append((track.get("label") or "", shape))
    size_tags = (f"meta//original_size/{side}" for side in ("width", "height"))
    size = tuple(number(xml_files.text_of(root, tag)) for tag in size_tags)
    for frame, shapes in sorted(frames.items()):
        name = f"frame_{frame:06d}"
        where = (str(path), f"frame {frame}")
        found = collector.images.of_stem(name, path) or f"{name}.PNG"
        image_id = collector.image(TRAIN, found, size, where, group=str(path))
        for index, (label, shape) in enumerate(shapes, 1):
            _add(collector, TRAIN, image_id, label, shape, (where[0], f"{where[1]}, shape {index}"))
