"""Untrusted values in messages."""

import reprlib
from typing import Any


def show(value: Any) -> str:
    """A short, printable, one-line form of any JSON value."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 200
    return short.repr(value)
