"""Runs a vendor's tool from an argument list, with a time-out, and leaves no process behind."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence


def run(
    name: str, command: Sequence[str], timeout_s: float, env: Mapping[str, str] | None = None
) -> tuple[int | str, str]:
    """Runs a command.

    Args:
      name: name of the tool, for messages.
      command: the command and its arguments; no shell is used.
      timeout_s: seconds after which the tool and its children are killed.
      env: replaces the environment if given.

    Returns:
      (exit code, or the reason why there is none; combined output of stdout and stderr).
    """
    try:
        # A new session allows killing the tool together with any child that it starts.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
        )
    except OSError as error:
        return f"{name} cannot be started: {error.strerror}", ""
    try:
        printed, _ = process.communicate(timeout=timeout_s)
        code: int | str = process.returncode
    except subprocess.TimeoutExpired:
        _end(process)
        printed, _ = process.communicate()
        code = f"{name} did not finish within {timeout_s} s"
    except BaseException:
        _end(process)
        raise
    return code, printed.decode("utf-8", "replace")


def fault(name: str, code: int | str) -> str:
    """Returns why a run failed, or ''."""
    if isinstance(code, str):
        return code
    if code < 0:
        return f"{name} was killed by signal {-code}"
    return f"{name} exited with code {code}" if code else ""


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
