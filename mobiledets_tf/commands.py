"""Runs a command of this project in its own process."""

import subprocess
import sys
from collections.abc import Sequence


def line(command: str, flags: Sequence[str]) -> list[str]:
    """Returns the arguments that run a module of `mobiledets_tf.cli` with these flags."""
    return [sys.executable, "-m", f"mobiledets_tf.cli.{command}", *flags]


def call(arguments: Sequence[str]) -> int:
    """Runs a command, passing its output through, and returns its exit code."""
    return subprocess.run(arguments, check=False).returncode
