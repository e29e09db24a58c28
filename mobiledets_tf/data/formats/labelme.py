"""Reads LabelMe annotations: one JSON file per image, with `shapes` and `imagePath`."""

import math
from pathlib import Path
from typing import Any

from mobiledets_tf.data import coco
from mobiledets_tf.data.formats import json_files
from mobiledets_tf.data.formats.collecting import (
    TRAIN,
    Collector,
    Damaged,
    Images,
    enclosing,
    files_below,
    split_of,
)

NAME, LOOKS_LIKE = "labelme", "JSON files with shapes and imagePath"


def recognises(place: Path) -> bool:
    """Returns whether a file or folder contains annotations of this format."""
    return any(map(_is_one, files_below(place, ".json")))


def _is_one(path: Path) -> bool:
    return json_files.mentions(path, "shapes", "imagePath")


def read(folder: Path, place: Path) -> list[coco.Split]:
    """Reads the splits of a file or folder; `folder` is the one with the images."""
    collector = Collector(NAME, place, Images(folder))
    for path in files_below(place, ".json"):
        split = split_of(path, place if place.is_dir() else None) or TRAIN
        try:
            value = json_files.value_of(path)
            if not isinstance(value, dict):
                raise Damaged("should be a JSON object with 'shapes'")
            _read_file(collector, split, path, value)
        except Damaged as damaged:
            collector.fault(path, "file", str(damaged), split)
    return collector.splits()


def _read_file(collector: Collector, split: str, path: Path, value: dict[str, Any]) -> None:
    shapes, given = value.get("shapes"), value.get("imagePath")
    if not isinstance(shapes, list) or not isinstance(given, str):
        raise Damaged("should have a list 'shapes' and a text 'imagePath'")
    found = collector.images.find(given, path) or collector.images.of_stem(path.stem, path) or given
    size = (value.get("imageWidth"), value.get("imageHeight"))
    image_id = collector.image(split, found, size, (str(path), "image"))
    for index, shape in enumerate(shapes, 1):
        where = (str(path), f"shape {index}")
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            collector.fault(path, where[1], "should be an object with a 'label'", split)
            continue
        kind = shape.get("shape_type", "polygon")
        if kind not in ("rectangle", "polygon", "circle"):
            collector.notes[f"shapes of type {str(kind)[:30]!r}, not used"] += 1
            continue
        bbox = _box(kind, shape.get("points"))
        if bbox is None:
            collector.fault(path, where[1], "'points' should be pairs of numbers", split)
            continue
        if kind != "rectangle":
            collector.notes[f"shapes of type {kind!r}; replaced by the boxes around them"] += 1
        collector.box(split, image_id, shape["label"], bbox, where)


def _box(kind: str, points: Any) -> list[float] | None:
    if not isinstance(points, list) or len(points) < 2:
        return None
    try:
        pairs = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError, OverflowError):
        return None
    if kind == "circle":  # The points are the centre and a point on the circle.
        (x, y), (edge_x, edge_y) = pairs[:2]
        radius = math.hypot(edge_x - x, edge_y - y)
        return [x - radius, y - radius, 2 * radius, 2 * radius]
    return enclosing(pairs)
