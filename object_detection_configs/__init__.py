"""Pipeline configs that ship with the project, also in an installed package."""

import os
from pathlib import Path

from mobiledets_tf.errors import InputError, nearest

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Returns the file names of the configs, sorted."""
    return sorted(path.name for path in FOLDER.glob("*.config"))


def find(path: str | os.PathLike) -> str:
    """Returns the path of a config file: the given file, or the shipped config with that name.

    A path of the checkout (`object_detection_configs/NAME.config`) or a bare name is found from any
    folder.

    Raises:
      InputError: there is no such file or shipped config; the message lists the shipped names.
    """
    text = os.fspath(path)
    if os.path.exists(text):
        return text
    folder, name = os.path.split(text)
    if folder in ("", FOLDER.name) and name in names():
        return str(FOLDER / name)
    shipped = ", ".join(names())
    raise InputError(
        f"pipeline config {text!r} does not exist{nearest(name, names())}; shipped configs: {shipped}"
    )
