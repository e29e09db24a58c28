"""Reads this project's data folders: `instances_SPLIT.json` beside the image folder `SPLIT/`."""

from pathlib import Path

from mobiledets_tf.data import coco

NAME, LOOKS_LIKE = "coco", "instances_*.json"


def recognises(place: Path) -> bool:
    """Returns whether a file or folder contains annotations of this format."""
    if place.is_file():
        return coco.is_split_file(place)
    found = (path for path in place.iterdir() if coco.is_split_file(path))
    return any((place / coco.split_name(path)).is_dir() for path in found)


def read(folder: Path, place: Path) -> list[coco.Split]:
    """Reads the splits of a file or folder; `folder` is the one with the images."""
    return coco.find_splits(folder, None if place == folder else place)
