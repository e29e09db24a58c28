"""Errors that a user can act on. Commands turn them into one line and an exit code."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """An input, a flag or a file is wrong. Commands print it and exit with 2.

    The message is one line: what, where, what was given, what is allowed.
    """


class CheckFailed(RuntimeError):
    """A check or a gate did not pass. Commands print it and exit with 1."""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Returns ' (did you mean X?)' for the closest allowed word, or ''."""
    found = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def unknown_name(what: str, given: str, allowed: Iterable[str]) -> InputError:
    """An InputError for a name that is not in a closed list."""
    allowed = [name for name in allowed if name]
    names = ", ".join(allowed) or "none"
    return InputError(f"unknown {what} {given!r}{nearest(given, allowed)}; allowed: {names}")
