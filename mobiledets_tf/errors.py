"""Errors that users can act on; commands print each as one line and turn it into an exit code."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """An input, a flag or a file is invalid; commands print the message and exit with 2.

    The message is one line that says what is wrong, where, which value was given and which are allowed.
    """


class CheckFailed(RuntimeError):
    """A check did not pass or a required bound was missed; commands print the message and exit with 1."""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Returns ' (did you mean X?)' for the closest allowed word, or '' if none is close."""
    found = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def unknown_name(what: str, given: str, allowed: Iterable[str]) -> InputError:
    """Returns an InputError for a name that is not among the allowed ones.

    Args:
      what: kind of name, for the message.
      given: the unknown name.
      allowed: all valid names; empty ones are ignored.
    """
    allowed = [name for name in allowed if name]
    names = ", ".join(allowed) or "none"
    return InputError(f"unknown {what} {given!r}{nearest(given, allowed)}; allowed: {names}")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the error's class if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def missing_extra(extra: str, package: str) -> InputError:
    """Returns the error for a missing optional dependency, with the command that installs it."""
    return InputError(f"{package} is not installed; run: pip install 'mobiledets-tf[{extra}]'")
