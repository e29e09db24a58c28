"""Compares classes by name between two data sets, between a data set and a model, or between two runs."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from mobiledets_tf.data import records
from mobiledets_tf.data.coco import same_name
from mobiledets_tf.data.text import show
from mobiledets_tf.errors import InputError

_SHOWN = 3
_SIDES = frozenset(
    {"left", "right", "lefthand", "righthand", "clockwise", "counterclockwise", "anticlockwise"}
)
_DIGITS = frozenset("zero one two three four five six seven eight nine ten".split())


def require_same(ours: Mapping[int, str], where: str, theirs: Mapping[int, str], there: str) -> None:
    """Raises InputError, with the names on both sides, unless both sides have the same classes.

    Args:
      ours, theirs: class names by id.
      where, there: description of the source of `ours` and `theirs`, for the message.
    """
    different = differences(ours, theirs)
    if different:
        shown = "; ".join(
            f"class {number} is {_shown(ours, number)} in {where} and {_shown(theirs, number)} in {there}"
            for number in different[:_SHOWN]
        )
        more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise InputError(f"classes differ: {shown}{more}")


def differences(ours: Mapping[int, str], theirs: Mapping[int, str]) -> list[int]:
    """Returns the ids whose names differ or that only one side has."""
    return [
        number
        for number in sorted(ours.keys() | theirs.keys())
        if number not in ours or number not in theirs or same_name(ours[number]) != same_name(theirs[number])
    ]


def beside(files: list[str]) -> tuple[dict[int, str], str] | None:
    """Returns names and path of the label map beside TFRecord files, or None if there is none."""
    try:
        path = records.label_map_path(files)
    except InputError:
        return None
    return records.read_label_map(path), path


def keep(folder: str | os.PathLike, files: list[str]) -> dict[int, str]:
    """Writes the label map of TFRecord files to an output folder, or compares it with the one there.

    Returns:
      The class names by id.

    Raises:
      InputError: the folder already has a label map with other classes.
    """
    path = os.path.join(os.fspath(folder), records.LABEL_MAP)
    source = records.label_map_path(files)
    names = records.read_label_map(source)
    if os.path.exists(path):
        require_same(names, repr(source), records.read_label_map(path), repr(path))
    else:
        records.write_label_map(path, names)
    return names


def check_texts(example: records.Example, names: Mapping[int, Sequence[str]], where: str) -> None:
    """Raises InputError if an example names a class differently from the label map.

    Args:
      example: the example whose class names are compared.
      names: maps class ids to all their allowed names (`records.label_map_names`).
      where: description of the label map, for the message.
    """
    for number, text in zip(example.classes.tolist(), example.names, strict=False):
        allowed = names.get(number, ())
        if text and allowed and same_name(text) not in map(same_name, allowed):
            raise InputError(
                f"classes differ: image {example.image_id!r} has class {number} as {show(text)}, "
                f"{where} has it as {show(allowed[0])}"
            )


def told_by_side(names: Iterable[str]) -> list[str]:
    """Selects classes whose mirror images belong to another class or to none: sides, digits, letters."""
    return [name for name in names if _is_told_by_side(name)]


def mirror_warning(found: Sequence[str], count: int) -> str:
    """Returns a warning about mirror images of the classes `found`, out of `count` classes."""
    shown = ", ".join(map(show, found[:_SHOWN])) + (", ..." if len(found) > _SHOWN else "")
    return f"{len(found)} of {count} classes are named after a side, a digit or a letter: {shown}"


def _is_told_by_side(name: str) -> bool:
    words = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if _SIDES & set(words) or ("l" in words or "r" in words) and len(words) > 1:
        return True
    return len(words) == 1 and (len(words[0]) == 1 or words[0].isdigit() or words[0] in _DIGITS)


def _shown(names: Mapping[int, str], number: int) -> str:
    return show(names[number]) if number in names else "missing"
