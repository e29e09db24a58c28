"""A folder that one process at a time may write its run into."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mobiledets_tf.errors import InputError

_NAME = ".lock"


@contextlib.contextmanager
def locked(folder: str | os.PathLike, what: str = "model_dir") -> Iterator[None]:
    """Keeps other runs out of a folder until the block ends; the system does so if the process dies.

    Args:
      folder: made where it's missing.
      what: it is, for messages.

    Raises:
      InputError: another run is in the folder, or no file can be made there.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not truncated: it holds the number of the process that has the lock.
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
                "wait for its end, stop it, or name another folder"
            ) from error
        except OSError:
            pass  # A file system without locks: as it was before there were any.
        # A full disk is for those to name who write what matters.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield
