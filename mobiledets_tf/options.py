"""The base of all options: dataclasses whose fields are flags of a command and arguments of the Python API.

Each command with many flags has one such class, in the package that does its work. A field has the name, the
default and the bounds of its flag, so that a command and the API accept and reject the same values. Messages
refer to a field by its flag, for example `--steps`.
"""

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

from mobiledets_tf.errors import InputError, nearest


def option(
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] = (),
) -> Any:
    """Returns a dataclass field whose value is checked when an object is made.

    Args:
      default: default value; if omitted, the field is required. A default of None also allows None.
      low, high: smallest and largest allowed number; None for no bound.
      choices: the allowed words; empty if any is allowed.
    """
    metadata = {"low": low, "high": high, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of one function of the API. Paths may be given as `pathlib.Path`; they are stored as text.

    Raises:
      InputError: a number is outside its bounds, or a word is unknown.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, field.name, os.fspath(value))
            elif field.metadata and value is not None:
                _check(field.name, value, **field.metadata)


def _check(name: str, value: Any, low: float | None, high: float | None, choices: tuple[str, ...]) -> None:
    if choices and value not in choices:
        hint = nearest(str(value), choices)
        raise InputError(f"--{name}={value}{hint}; allowed: {', '.join(choices)}")
    if low is None and high is None:
        return
    if not isinstance(value, (int, float)):
        raise InputError(f"--{name}={value!r}; allowed: numbers")
    # The comparison is written so that NaN fails it.
    if not (low is None or value >= low) or not (high is None or value <= high):
        allowed = f"{low} or more" if high is None else f"{low} to {high}"
        allowed = f"at most {high}" if low is None else allowed
        raise InputError(f"--{name}={value}; allowed: {allowed}")
