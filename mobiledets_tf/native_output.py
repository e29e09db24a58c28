"""Captures what native libraries print."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO, TextIO

from mobiledets_tf.errors import CheckFailed, InputError

_SHOWN = 4000


@contextlib.contextmanager
def held_back() -> Iterator[TextIO]:
    """Keeps native output and warnings off the terminal, and shows the output if an error is raised.

    The converter and the runtimes bypass Python's `sys.stderr` and `sys.stdout`, so the file descriptors
    themselves are redirected.

    Yields:
      A stream that writes to the real standard error, for progress.

    Raises:
      RuntimeError: an error was raised inside; the end of the captured output is appended. The
        project's own errors, OSError and KeyboardInterrupt are raised unchanged.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with (
        os.fdopen(os.dup(2), "w") as stream,
        os.fdopen(os.dup(1), "w") as output,
        tempfile.TemporaryFile() as chatter,
    ):
        os.dup2(chatter.fileno(), 2)
        os.dup2(chatter.fileno(), 1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield stream
        except (InputError, CheckFailed, OSError):
            raise
        except Exception as error:
            raise RuntimeError(f"{error}\n{_tail(chatter)}".strip()) from error
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            stream.flush()
            os.dup2(stream.fileno(), 2)
            os.dup2(output.fileno(), 1)


def _tail(chatter: IO[bytes]) -> str:
    size = chatter.seek(0, os.SEEK_END)
    chatter.seek(max(0, size - _SHOWN))
    return chatter.read().decode("utf-8", "replace")
