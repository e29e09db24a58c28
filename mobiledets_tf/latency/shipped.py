"""Latency models that come with the package; each file says how it was made."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "models"


def shipped_paths() -> list[Path]:
    """Files of all shipped models, by name: DEVICE[_VARIANT]_SPACE.json."""
    return sorted(FOLDER.glob("*.json"))


def find(path: str | os.PathLike) -> str:
    """The path that was given; or the shipped model of that name, with or without `.json`."""
    text = os.fspath(path)
    named = [str(model) for model in shipped_paths() if text in (model.name, model.stem)]
    return named[0] if named and not os.path.exists(text) else text
