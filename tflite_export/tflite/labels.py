"""Class names in files that other programs read: one name per line, or a number and a name per line.

Programs guess which of the two formats a file has. Frigate and pycoral treat a line that begins with a
number as indexed, so a plain `7 up` is misread; DOODS counts plain lines from 1. All of them read
indexed lines alike. Task libraries read plain lines from the archive inside a .tflite file.
"""

import collections
import os
import re
from collections.abc import Sequence

from mobiledets_tf import files
from mobiledets_tf.data.text import show
from mobiledets_tf.errors import InputError

PLAIN, INDEXED = "labels.txt", "labels_indexed.txt"
# The line for a class id that is not in the label map, as in TensorFlow's own label files.
NO_NAME = "???"
_NUMBER_FIRST = re.compile(r"\s*\d+[:\s]")
_INDEXED_LINE = re.compile(r"\s*(\d+)(?:\s*:\s*|\s+)(\S.*?)\s*")
MAX_CLASSES = 100_000


def check(names: Sequence[str], where: str) -> None:
    """Rejects names that a reader cannot tell apart; `where` names their origin in messages.

    Raises:
      InputError: two names are equal, or one is empty.
    """
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise InputError(f"{where}: the name of class {number} is empty")
    counts = collections.Counter(name for name in names if name != NO_NAME)
    for name, count in counts.items():
        if count > 1:
            which = ", ".join(str(i) for i, other in enumerate(names, 1) if other == name)
            raise InputError(f"{where}: classes {which} are all named {show(name)}; give each its own name")


def plain(names: Sequence[str]) -> str:
    """Formats one name per line; the first line is class id 0 of the file."""
    return "".join(f"{name}\n" for name in names)


def indexed(names: Sequence[str]) -> str:
    """Formats `0  name` lines; ids without a name have no line."""
    return "".join(f"{number}  {name}\n" for number, name in enumerate(names) if name != NO_NAME)


def misread(names: Sequence[str]) -> list[str]:
    """Returns the names that readers of the plain file mistake for a number and a name."""
    return [name for name in names if _NUMBER_FIRST.match(name)]


def read(path: str | os.PathLike, num_classes: int | None = None) -> tuple[str, ...]:
    """Reads the names of a plain or indexed file, starting with class id 0.

    Args:
      path: the file. It is indexed if every line is a number and a name, and no number occurs twice.
      num_classes: number of classes of the model. A plain file may begin with one more line for the
        background, `background` or `???`, which is left out.

    Raises:
      InputError: the file is not text, is empty, has another number of names, or two names are equal.
    """
    lines = files.read_text(path, "labels", "utf-8-sig").splitlines()
    names = parse([line.strip() for line in lines if line.strip()], f"labels {str(path)!r}")
    return _fitted(names, num_classes, f"labels {str(path)!r}")


def parse(lines: Sequence[str], where: str) -> list[str]:
    """Parses the lines of a plain or indexed file into names; raises the same errors as `read`."""
    if not lines:
        raise InputError(f"{where}: the file contains no names")
    pairs = [match.groups() for line in lines if (match := _INDEXED_LINE.fullmatch(line))]
    numbers = [int(number) for number, _ in pairs if len(number) < 9]
    if len(numbers) != len(lines) or len(set(numbers)) != len(numbers):
        names = list(lines)
    elif max(numbers) >= MAX_CLASSES:
        raise InputError(f"{where}: class id {max(numbers)}; allowed: below {MAX_CLASSES:,}")
    else:
        names = [NO_NAME] * (max(numbers) + 1)
        for number, (_, name) in zip(numbers, pairs, strict=True):
            names[number] = name
    check(names, where)
    return names


def _fitted(names: list[str], num_classes: int | None, where: str) -> tuple[str, ...]:
    if num_classes is None or len(names) == num_classes:
        return tuple(names)
    if len(names) == num_classes + 1 and names[0].lower() in ("background", NO_NAME):
        return tuple(names[1:])
    is_gap = len(names) < num_classes and NO_NAME in names
    if is_gap:
        return (*names, *[NO_NAME] * (num_classes - len(names)))
    raise InputError(f"{where}: {len(names)} names, but the model has {num_classes} classes")
