"""JSON of strangers: read as a whole, or a look at what it is."""

from pathlib import Path
from typing import Any

from mobiledets_tf import files
from mobiledets_tf.data.formats.collecting import Damaged
from mobiledets_tf.errors import InputError

# A look is taken at files up to this size; larger ones are read where a format is asked for.
_HEAD = 1 << 16


def value_of(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
      Damaged: it cannot be read or is no JSON.
    """
    try:
        return files.read_json(path)
    except InputError as error:
        # The file is named where this is said.
        raise Damaged(str(error).split(f"{str(path)!r} ", 1)[-1]) from error


def mentions(path: Path, *keys: str) -> bool:
    """Whether all keys occur in the beginning or the end of a file."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            size = file.seek(0, 2)
            file.seek(max(len(head), size - _HEAD))
            text = head + file.read(_HEAD)
    except OSError:
        return False
    return all(f'"{key}"'.encode() in text for key in keys)
