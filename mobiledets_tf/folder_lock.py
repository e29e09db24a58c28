"""Locks a folder so that only one process at a time writes its run into it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mobiledets_tf.errors import InputError

_NAME = ".lock"


@contextlib.contextmanager
def locked(folder: str | os.PathLike, what: str = "model_dir") -> Iterator[None]:
    """Locks a folder for this process until the `with` block ends or the process dies.

    Args:
      folder: the folder to lock; it is created if missing.
      what: role of the folder, for error messages.

    Raises:
      InputError: another run has locked the folder, or no file can be created in it.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Opened for appending: truncating would erase the process id that the lock's owner wrote.
        file = open(folder / _NAME, "a+b", buffering=0)
    except OSError as error:
        raise InputError(f"{what} {str(folder)!r} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            process = file.read().decode(errors="replace") or "unknown"
            raise InputError(
                f"{what} {str(folder)!r} is in use by another run (process {process}); "
                "wait until it ends, stop it, or choose another folder"
            ) from error
        except OSError:
            pass  # The file system does not support locks, so the run continues without one.
        # The process id is only informative; disk-full errors are raised where the output is written.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield
