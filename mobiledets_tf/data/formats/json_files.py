"""Reads untrusted JSON files completely, or just enough to recognise their format."""

from pathlib import Path
from typing import Any

from mobiledets_tf import files
from mobiledets_tf.data.formats.collecting import Damaged
from mobiledets_tf.errors import InputError

# Number of bytes at the beginning and at the end of a file that are searched for keys.
_HEAD = 1 << 16


def value_of(path: Path) -> Any:
    """Reads the value in a JSON file.

    Raises:
      Damaged: the file cannot be read or is not JSON.
    """
    try:
        return files.read_json(path)
    except InputError as error:
        # The file's name is removed, because callers name the file themselves.
        raise Damaged(str(error).split(f"{str(path)!r} ", 1)[-1]) from error


def mentions(path: Path, *keys: str) -> bool:
    """Returns whether all keys occur near the beginning or the end of a file."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            size = file.seek(0, 2)
            file.seek(max(len(head), size - _HEAD))
            text = head + file.read(_HEAD)
    except OSError:
        return False
    return all(f'"{key}"'.encode() in text for key in keys)
