"""Latency models that are shipped with the package; each file records how it was made."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "models"


def shipped_paths() -> list[Path]:
    """Returns the files of all shipped models, named DEVICE[_VARIANT]_SPACE.json, in alphabetical order."""
    return sorted(FOLDER.glob("*.json"))


def find(path: str | os.PathLike) -> str:
    """Returns the path of a latency model.

    Args:
      path: path of a file, or name of a shipped model, with or without `.json`. An existing file is
        preferred to a shipped model of the same name.
    """
    text = os.fspath(path)
    named = [str(model) for model in shipped_paths() if text in (model.name, model.stem)]
    return named[0] if named and not os.path.exists(text) else text
