"""Runs the project's commands from a benchmark, whose standard output is reserved for its result."""

import os
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


def usage(name: str, *arguments: str) -> tuple[float, float, float]:
    """Runs `mobiledets-NAME` without its output; returns (seconds, seconds of CPU time, peak memory in MiB).

    Raises:
      SystemExit: the command failed.
    """
    command = [sys.executable, "-m", f"mobiledets_tf.cli.{name}", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
