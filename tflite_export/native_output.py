"""Holding back what native libraries print on standard error."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import TextIO

from mobiledets_tf.errors import CheckFailed, InputError

_SHOWN = 4000


@contextlib.contextmanager
def held_back() -> Iterator[TextIO]:
    """Keeps native chatter and warnings off the terminal, and shows it when something raises.

    The converter and the runtime print past Python's `sys.stderr`, so the file descriptor
    itself is diverted.

    Yields:
      A stream on the real standard error, for progress.

    Raises:
      RuntimeError: for an error inside, with the last of what was printed. The project's own
        errors, OSError and KeyboardInterrupt pass as they are.
    """
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w") as stream, tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield stream
        except (InputError, CheckFailed, OSError):
            raise
        except Exception as error:
            raise RuntimeError(f"{error}\n{_tail(chatter)}".strip()) from error
        finally:
            sys.stderr.flush()
            stream.flush()
            os.dup2(stream.fileno(), 2)


def _tail(chatter) -> str:
    size = chatter.seek(0, os.SEEK_END)
    chatter.seek(max(0, size - _SHOWN))
    return chatter.read().decode("utf-8", "replace")
