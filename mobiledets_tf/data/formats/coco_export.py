"""Reads COCO JSON in any folder layout: COCO's own, and those of CVAT and Label Studio exports."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobiledets_tf.data import coco
from mobiledets_tf.data.formats import json_files
from mobiledets_tf.data.formats.collecting import TRAIN, Damaged, Images, Listed, files_below, split_of
from mobiledets_tf.data.text import show
from mobiledets_tf.errors import InputError

NAME, LOOKS_LIKE = "coco", "instances_*.json"


def recognises(place: Path) -> bool:
    """Returns whether a file or folder contains annotations of this format."""
    return any(map(is_one, files_below(place, ".json")))


def is_one(path: Path) -> bool:
    """Returns whether a file looks like COCO annotations."""
    return (
        json_files.mentions(path, "image_id", "bbox")
        or json_files.mentions(path, "categories", "images")
        or json_files.mentions(path, "file_name", "width", "height")
    )


def read(folder: Path, place: Path) -> list[coco.Split]:
    """Reads the splits of a file or folder; `folder` is the one with the images."""
    return read_files(folder, place, [path for path in files_below(place, ".json") if is_one(path)])


def read_files(folder: Path, place: Path, paths: Sequence[Path]) -> list[coco.Split]:
    """Reads each file as one split; images are found by name anywhere in the folder.

    Raises:
      InputError: a file cannot be read, none can be used, or two belong to the same split.
    """
    images = Images(folder)
    used: set[str] = set()
    found: dict[str, coco.Split] = {}
    for path in paths:
        name = split_of(path, place if place.is_dir() else None) or TRAIN
        try:
            value = json_files.value_of(path)
        except Damaged as damaged:
            raise InputError(f"annotation file {str(path)!r} {damaged}") from damaged
        # Caption files and detection results look similar, but have no categories.
        if isinstance(value, dict) and "categories" not in value and len(paths) > 1:
            continue
        if name in found:
            raise InputError(
                f"{str(found[name].annotations)!r} and {str(path)!r} both belong to split {name!r}; name "
                "one of them with --annotations"
            )
        _find_images(value, images, path, used)
        found[name] = coco.Split(name, folder, path, value, Listed(folder))
    if not found:
        raise InputError(f"{str(place)!r} contains no COCO annotations with categories")
    left = [name for name in images.names if os.path.normpath(name) not in used]
    splits = list(found.values())
    if left:
        more = ", ..." if len(left) > 1 else ""
        note = f"images in the folder without an entry, not used: {len(left)} ({show(left[0])}{more})"
        splits[0] = dataclasses.replace(splits[0], notes=(note,))
    return splits


def _find_images(value: Any, images: Images, path: Path, used: set[str]) -> None:
    """Replaces each entry's file name by the image's path in the folder; the checks report faulty entries."""
    entries = value.get("images") if isinstance(value, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
            found = images.find(entry["file_name"], path)
            if found is not None:
                entry["file_name"] = found
                used.add(os.path.normpath(found))
