"""Reads annotations in common formats and converts them to COCO content for all later steps.

Each module defines `NAME`, `LOOKS_LIKE` (a description for messages), `recognises(annotations)` and
`read(folder, annotations)`, which returns the splits.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path

from mobiledets_tf.data import coco
from mobiledets_tf.errors import InputError

# Modules in the order in which they are tried: the first that recognises a folder reads it.
MODULES = (
    "coco_folder",
    "roboflow",
    "coco_export",
    "tfrecord",
    "yolo",
    "voc",
    "cvat",
    "labelme",
    "label_studio",
)
NAMES = ("coco", "roboflow", "tfrecord", "yolo", "voc", "cvat", "labelme", "label_studio")


def read(
    images: str, annotations: str | None = None, format_name: str | None = None
) -> tuple[str, list[coco.Split]]:
    """Reads the splits of a data folder in any of the formats.

    Args:
      images: the data folder, or the folder of images if `annotations` is given.
      annotations: a file, or a folder of files, that contains only the annotations.
      format_name: one of `NAMES`; None detects the format.

    Returns:
      The name of the format and the splits.

    Raises:
      InputError: a path does not exist, no format is recognised, or the folder has no images with
        annotations.
    """
    if not Path(images).is_dir():
        raise InputError(f"--images={str(images)!r} is not a folder")
    folder = Path(images)
    place = Path(annotations) if annotations is not None else folder
    modules = [importlib.import_module(f"{__name__}.{name}") for name in MODULES]
    if format_name is not None:
        modules = [module for module in modules if module.NAME == format_name]
    if annotations is not None and not place.exists():
        return "coco", coco.find_splits(images, annotations)  # Raises an error that explains the path.
    for module in modules:
        if module.recognises(place):
            return module.NAME, _named(module.read(folder, place))
    if annotations is not None and format_name is None:
        return "coco", coco.find_splits(images, annotations)
    if format_name is not None:
        wanted = modules[0].LOOKS_LIKE
        raise InputError(
            f"--format={format_name}: {str(place)!r} does not look like this format; expected: {wanted}"
        )
    # Two modules may read one format.
    known = dict.fromkeys(f"{module.NAME} ({module.LOOKS_LIKE})" for module in modules if module.LOOKS_LIKE)
    raise InputError(
        f"{str(folder)!r} contains no instances_*.json and no annotations in another known format; give a "
        f"data folder, or the folder of images with --annotations. Known formats: {', '.join(known)}"
    )


def _named(splits: Sequence[coco.Split]) -> list[coco.Split]:
    """Renames split `test` to `val` if there is a training split but no validation split."""
    names = {split.name for split in splits}
    if "test" not in names or "val" in names or "train" not in names:
        return list(splits)
    note = "this split is called test in the data; it is used as val"
    return [
        dataclasses.replace(split, name="val", notes=(*split.notes, note)) if split.name == "test" else split
        for split in splits
    ]
