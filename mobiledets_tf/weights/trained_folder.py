"""Reads a folder's description of the weights in it: their network, its settings and its classes.

Training, search and import write such folders; every command that starts from trained weights reads
them with this module. TensorFlow is not imported.
"""

import os
from pathlib import Path
from typing import Any

from mobiledets_tf import architecture as architectures
from mobiledets_tf.architecture import Architecture
from mobiledets_tf.data import records
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import read_artefact

SETTINGS, ARCHITECTURE, LABEL_MAP = "settings.json", "architecture.json", records.LABEL_MAP
SETTINGS_VERSION = 1


def folder_of(path: str | os.PathLike) -> Path:
    """Returns the folder itself, or the folder of a checkpoint prefix."""
    path = Path(path)
    return path if path.is_dir() else path.parent


def names_network(folder: Path) -> bool:
    """Returns whether a folder has both files that describe the network of its weights."""
    return (folder / ARCHITECTURE).exists() and (folder / SETTINGS).exists()


def settings(folder: Path) -> dict[str, Any]:
    """Returns the settings of a folder; empty if it has none.

    They include `num_classes`, `image_size` as a list [height, width], and `depth_multiplier`.

    Raises:
      InputError: the file is damaged, or lacks one of the three.
    """
    path = folder / SETTINGS
    if not path.exists():
        return {}
    # The settings of a search had no version at first.
    found = read_artefact(path, "settings file", SETTINGS_VERSION, absent=1)
    size = found.get("image_size")
    well_formed = (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int for side in size)
        and type(found.get("num_classes")) is int
        and type(found.get("depth_multiplier")) in (int, float)
    )
    if not well_formed:
        raise InputError(f"settings file {str(path)!r} lacks num_classes, image_size or depth_multiplier")
    return found


def network(folder: Path) -> Architecture | None:
    """Returns the network of a folder before its depth multiplier is applied, or None if it has none."""
    path = folder / ARCHITECTURE
    return architectures.load(str(path)) if path.exists() else None


def class_names(folder: Path) -> dict[int, str]:
    """Returns the class names by class id; empty if the folder has no label map."""
    path = folder / LABEL_MAP
    return records.read_label_map(path) if path.exists() else {}
