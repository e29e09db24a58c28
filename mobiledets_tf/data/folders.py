"""Writes folders completely or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mobiledets_tf.errors import InputError


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder beside `path` and renames it to `path` on success.

    The temporary folder is removed if the body raises, so that nothing half-written remains.

    Raises:
      InputError: `path` exists and is not an empty folder.
    """
    path = Path(path)
    if path.exists() and not is_empty_folder(path):
        raise InputError(f"output folder {str(path)!r} is not empty; remove it or name another")
    with staging_folder(path) as temporary:
        yield temporary
        os.rename(temporary, path)


@contextlib.contextmanager
def staging_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, on the same disk, and removes whatever is left of it."""
    path = Path(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        # mkdtemp makes a private folder, but the renamed folder needs the usual permissions of a new one.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o777 & ~umask)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_empty_folder(path: Path) -> bool:
    """Returns whether a path is a folder with nothing in it."""
    return path.is_dir() and not any(path.iterdir())


def replace_files(new: Path, target: Path, outdated: list[str]) -> None:
    """Moves every file of folder `new` into `target` and removes the `outdated` files.

    Files are only renamed; if a rename fails or is interrupted, all are renamed back, so that
    `target` contains the same files as before.
    """
    names = sorted(path.name for path in new.iterdir())
    with staging_folder(target) as old:
        moved: list[tuple[Path, Path]] = []
        try:
            for name in sorted({*outdated, *names}):
                if (target / name).exists():
                    _move(target / name, old / name, moved)
            for name in names:
                _move(new / name, target / name, moved)
        except BaseException:
            for source, destination in reversed(moved):
                if destination.exists():
                    os.rename(destination, source)
            raise


def _move(source: Path, destination: Path, moved: list[tuple[Path, Path]]) -> None:
    # The move is recorded first, because an interrupt may arrive right after the rename.
    moved.append((source, destination))
    os.rename(source, destination)
