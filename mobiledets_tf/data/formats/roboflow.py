"""Reads Roboflow's COCO exports: `_annotations.coco.json` beside the images in train/, valid/ and test/."""

from pathlib import Path

from mobiledets_tf.data import coco
from mobiledets_tf.data.formats import coco_export
from mobiledets_tf.data.formats.collecting import files_below

NAME, LOOKS_LIKE = "roboflow", "_annotations.coco.json"


def _files(place: Path) -> list[Path]:
    return [path for path in files_below(place, ".json") if path.name == LOOKS_LIKE]


def recognises(place: Path) -> bool:
    """Returns whether a file or folder contains annotations of this format."""
    return bool(_files(place))


def read(folder: Path, place: Path) -> list[coco.Split]:
    """Reads the splits of a file or folder; `folder` is the one with the images."""
    return coco_export.read_files(folder, place, _files(place))
