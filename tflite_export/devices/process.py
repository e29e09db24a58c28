"""Running a vendor's tool: an argument list, a time-out, and nothing of it left behind."""

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
      name: of the tool, for messages.
      command: with its arguments; no shell.
      timeout_s: then the tool and its children are ended.
      env: replaces the environment.

    Returns:
      (exit code, or why there is none; what was printed on stdout and stderr).
    """
    try:
        # A session of its own: a tool may start a child, which has to go with it.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, env=env,
        )  # fmt: skip
    except OSError as error:
        return f"{name} cannot be started: {error.strerror}", ""
    try:
        printed, _ = process.communicate(timeout=timeout_s)
        code: int | str = process.returncode
    except subprocess.TimeoutExpired:
        _end(process)
        printed, _ = process.communicate()
        code = f"{name} did not end within {timeout_s} s"
    except BaseException:
        _end(process)
        raise
    return code, printed.decode("utf-8", "replace")


def fault(name: str, code: int | str) -> str:
    """Why a run did not succeed, or ''."""
    if isinstance(code, str):
        return code
    if code < 0:
        return f"{name} was ended by signal {-code}"
    return f"{name} ended with code {code}" if code else ""


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
