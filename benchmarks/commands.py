"""Runs the project's commands from a benchmark, whose standard output is reserved for its result."""

import subprocess
import sys
import time


def run(name: str, *arguments: str) -> float:
    """Runs `mobiledets-NAME` with its output sent to stderr; returns its duration in seconds.

    Raises:
      subprocess.CalledProcessError: the command failed; it has printed the reason.
    """
    return call("-m", f"mobiledets_tf.cli.{name}", *arguments)


def call(*arguments: str) -> float:
    """Runs this Python interpreter with the given arguments, in the same way as `run`."""
    print(" ".join(arguments), file=sys.stderr, flush=True)
    start = time.monotonic()
    # Inheritable locks of the caller stay locked until the command has ended, even if the caller is killed.
    subprocess.run([sys.executable, *arguments], check=True, stdout=sys.stderr, close_fds=False)
    return time.monotonic() - start
