"""Formats untrusted values for messages."""

import reprlib
from typing import Any


def show(value: Any) -> str:
    """Returns a short, printable, one-line representation of any JSON value."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 200
    return short.repr(value)
