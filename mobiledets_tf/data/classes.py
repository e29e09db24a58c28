"""Classes are compared by name wherever two data sets, a data set and a model, or two runs meet."""

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
    """Raises InputError, with the names on both sides, unless both have the same classes.

    Args:
      ours, theirs: class id -> name.
      where, there: what has them, for the message.
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
    """Ids whose names differ, or that one side alone has."""
    return [
        number for number in sorted(ours.keys() | theirs.keys())
        if number not in ours or number not in theirs or same_name(ours[number]) != same_name(theirs[number])
    ]  # fmt: skip


def beside(files: list[str]) -> tuple[dict[int, str], str] | None:
    """Names and path of the label map beside TFRecord files, or None where there is none."""
    try:
        path = records.label_map_path(files)
    except InputError:
        return None
    return records.read_label_map(path), path


def keep(folder: str | os.PathLike, files: list[str]) -> dict[int, str]:
    """Puts the label map of TFRecord files into a folder of work, or compares it with the one there.

    Returns:
      The class names by id.

    Raises:
      InputError: the work was started with other classes.
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
    """Raises InputError where an example names a class otherwise than the label map does.

    Args:
      example: whose classes are compared.
      names: class id -> the names that it may have (`records.label_map_names`).
      where: the label map, for the message.
    """
    for number, text in zip(example.classes.tolist(), example.names, strict=False):
        allowed = names.get(number, ())
        if text and allowed and same_name(text) not in map(same_name, allowed):
            raise InputError(
                f"classes differ: image {example.image_id!r} has class {number} as {show(text)}, "
                f"{where} has it as {show(allowed[0])}"
            )


def told_by_side(names: Iterable[str]) -> list[str]:
    """Names of classes whose mirror image is of another class or of none: sides, digits, letters."""
    return [name for name in names if _is_told_by_side(name)]


def mirror_warning(found: Sequence[str], count: int) -> str:
    """What to say where mirror images are shown of `found`, names of `count` classes."""
    shown = ", ".join(map(show, found[:_SHOWN])) + (", ..." if len(found) > _SHOWN else "")
    return f"{len(found)} of {count} classes tell left from right or are digits or letters by name: {shown}"


def _is_told_by_side(name: str) -> bool:
    words = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if _SIDES & set(words) or ("l" in words or "r" in words) and len(words) > 1:
        return True
    return len(words) == 1 and (len(words[0]) == 1 or words[0].isdigit() or words[0] in _DIGITS)


def _shown(names: Mapping[int, str], number: int) -> str:
    return show(names[number]) if number in names else "missing"
