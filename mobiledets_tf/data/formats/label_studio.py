"""Reads Label Studio's JSON and JSON-MIN exports: a list of tasks with boxes in percent of the image."""

import math
import os
import re
import urllib.parse
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
)

NAME, LOOKS_LIKE = "label_studio", "a JSON list of tasks with rectanglelabels"
# Label Studio puts eight hexadecimal digits and a hyphen before the names of uploaded files.
_PREFIX = re.compile(r"^[0-9a-f]{8}-")


def recognises(place: Path) -> bool:
    """Returns whether a file or folder contains annotations of this format."""
    return any(map(_is_one, files_below(place, ".json")))


def _is_one(path: Path) -> bool:
    return (
        json_files.mentions(path, "rectanglelabels")
        or json_files.mentions(path, "original_width")
        or json_files.mentions(path, "annotations", "data", "predictions")
    )


def read(folder: Path, place: Path) -> list[coco.Split]:
    """Reads the splits of a file or folder; `folder` is the one with the images."""
    collector = Collector(NAME, place, Images(folder))
    for path in files_below(place, ".json"):
        if not _is_one(path) and path != place:
            continue
        try:
            tasks = json_files.value_of(path)
            if not isinstance(tasks, list):
                raise Damaged("should be a JSON list of tasks")
        except Damaged as damaged:
            collector.fault(path, "file", str(damaged))
            continue
        for index, task in enumerate(tasks):
            _read_task(collector, path, index, task)
    return collector.splits()


def _read_task(collector: Collector, path: Path, index: int, task: Any) -> None:
    if not isinstance(task, dict):
        collector.fault(path, f"[{index}]", "should be an object")
        return
    entry = f"task {task['id']}" if isinstance(task.get("id"), int) else f"[{index}]"
    address = _address(task)
    if address is None:
        collector.fault(path, entry, "has no image in 'data'")
        return
    results = _results(collector, task)
    size = next(
        (
            (each["original_width"], each["original_height"])
            for each in results
            if {"original_width", "original_height"} <= each.keys()
        ),
        None,
    )
    name = _image_name(collector.images, address)
    image_id = collector.image(TRAIN, name, size, (str(path), entry))
    if size is None:
        return
    for number, each in enumerate(results, 1):
        _add(collector, image_id, each, size, (str(path), f"{entry}, region {number}"))


def _address(task: dict[str, Any]) -> str | None:
    data = task["data"] if isinstance(task.get("data"), dict) else task
    for key in ("image", "img", "photo"):
        if isinstance(data.get(key), str):
            return data[key]
    texts = (value for value in data.values() if isinstance(value, str))
    return next((text for text in texts if re.search(r"\.(jpe?g|png|bmp|webp)$", text, re.IGNORECASE)), None)


def _image_name(images: Images, address: str) -> str:
    """Finds the image for a task's address by its name, or by its name before it was uploaded."""
    parts = urllib.parse.urlsplit(address) if "?" in address or "://" in address else None
    path = urllib.parse.unquote(parts.path if parts else address)
    query = urllib.parse.parse_qs(parts.query) if parts else {}
    path = query["d"][0] if "d" in query else path  # Local files: /data/local-files/?d=folder/name.jpg
    base = os.path.basename(path)
    for name in (path.lstrip("/"), base, _PREFIX.sub("", base)):
        if found := images.find(name):
            return found
    return base


def _results(collector: Collector, task: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the regions of the first annotation of a task that was not cancelled."""
    annotations = task.get("annotations", task.get("completions"))
    if isinstance(annotations, list):
        given = [each for each in annotations if isinstance(each, dict) and not each.get("was_cancelled")]
        if len(given) > 1:
            collector.notes["tasks with several annotations; only the first of each is used"] += 1
        regions = given[0].get("result") if given else []
    else:  # In JSON-MIN the regions are stored under the name of the labelling tag.
        regions = next((value for value in task.values() if isinstance(value, list)), [])
    return [each for each in regions if isinstance(each, dict)] if isinstance(regions, list) else []


def _add(
    collector: Collector, image_id: int, region: dict[str, Any], size: tuple[Any, Any], where: tuple[str, str]
) -> None:
    value = region["value"] if isinstance(region.get("value"), dict) else region
    keys = ("rectanglelabels", "polygonlabels", "labels")
    labels = next((value[key] for key in keys if key in value), None)
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        if region.get("type") in (None, "rectanglelabels", "rectangle"):
            collector.notes["regions without a class, not used"] += 1
        else:
            collector.notes[f"regions of type {str(region['type'])[:30]!r}, not used"] += 1
        return
    bbox = _box(collector, value, size)
    if bbox is None:
        collector.fault(where[0], where[1], "should have x, y, width and height, or points, in percent")
        return
    if len(labels) > 1:
        collector.notes["regions with several classes; each class gets a box"] += 1
    for label in labels:
        collector.box(TRAIN, image_id, label, bbox, where)


def _box(collector: Collector, value: dict[str, Any], size: tuple[Any, Any]) -> list[float] | None:
    try:
        across, down = (float(side) / 100 for side in size)
        if isinstance(value.get("points"), list):
            collector.notes["polygons; replaced by the boxes around them"] += 1
            return enclosing((x * across, y * down) for x, y in value["points"])
        x, y, width, height = (float(value[key]) for key in ("x", "y", "width", "height"))
        turn = math.radians(float(value.get("rotation") or 0))
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    x, y, width, height = x * across, y * down, width * across, height * down
    if not turn or not math.isfinite(turn):
        return [x, y, width, height]
    collector.notes["rotated boxes; replaced by the upright boxes around them"] += 1
    # Label Studio rotates boxes about their upper left corner.
    cosine, sine = math.cos(turn), math.sin(turn)
    sides = ((0, 0), (width, 0), (0, height), (width, height))
    return enclosing((x + a * cosine - b * sine, y + a * sine + b * cosine) for a, b in sides)
