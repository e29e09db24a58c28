"""Reads and writes small artefacts as UTF-8 JSON or text; every write is atomic."""

import contextlib
import json
import os
import reprlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobiledets_tf.errors import InputError
from mobiledets_tf.version import WRITTEN_BY


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path` and renames it to `path` on success.

    The temporary file is removed if the body raises, so a failed or interrupted write
    leaves an existing file unchanged and never creates a partial one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    # mkstemp creates a file that only its owner can read; artefacts get the usual permissions instead.
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, 0o666 & ~umask)
    try:
        yield Path(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def check_output_dir(path: str | os.PathLike) -> None:
    """Raises InputError if an `output_dir` is a file."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise InputError(f"--output_dir={os.fspath(path)} is a file; a folder is needed")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically.

    Raises:
      ValueError: `value` contains NaN or infinity.
    """
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    write_text(path, text)


def write_artefact(path: str | os.PathLike, value: dict[str, Any]) -> None:
    """Writes a JSON object together with the version of the project that wrote it, atomically.

    This is meant for files that another stage, or a user, reads.
    """
    write_json(path, {"written_by": WRITTEN_BY} | value)


def read_artefact(
    path: str | os.PathLike, what: str, newest: int, oldest: int = 1, absent: int | None = None
) -> dict[str, Any]:
    """Reads a JSON object with a schema version, such as `write_artefact` writes.

    Args:
      path: path of the file.
      what: kind of file, for error messages.
      newest, oldest, absent: as in `check_version`.

    Raises:
      InputError: the file is missing, unreadable, not a JSON object or of a version that is not read.
    """
    content = read_json(path, what)
    try:
        check_version(content, newest, oldest, absent)
    except InputError as error:
        raise InputError(f"{what} {str(path)!r}: {error}") from error
    return content


def check_version(content: Any, newest: int, oldest: int = 1, absent: int | None = None) -> None:
    """Checks that this version of the project reads the schema version of an artefact.

    Args:
      content: the parsed JSON.
      newest: the schema version that is written now.
      oldest: the oldest one that is read.
      absent: version of files without an entry `schema_version`; None if every file has one.

    Raises:
      InputError: `content` is not an object, or its version is not an integer from `oldest` to `newest`.
    """
    if not isinstance(content, dict):
        raise InputError(f"{reprlib.repr(content)} is not a JSON object")
    version = content.get("schema_version", absent)
    if type(version) is int and oldest <= version <= newest:
        return
    allowed = str(newest) if oldest == newest else f"{oldest} to {newest}"
    hint = ""
    if type(version) is int and version > newest:
        writer = content.get("written_by")
        hint = f" by {WRITTEN_BY}; the file is from a newer version" + (
            f", {reprlib.repr(writer)}" if writer else ""
        )
    raise InputError(f"schema_version is {reprlib.repr(version)}; allowed: {allowed}{hint}")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 text, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: str | os.PathLike, what: str = "file", encoding: str = "utf-8") -> str:
    """Reads a text file.

    Args:
      path: path of the file.
      what: kind of file, for error messages.
      encoding: `utf-8`, or `utf-8-sig` for files that may begin with a byte order mark.

    Raises:
      InputError: the file is missing, unreadable or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding=encoding)
    except OSError as error:
        raise InputError(f"cannot read {what} {str(path)!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {str(path)!r}: not UTF-8 text: {error.reason}") from error


def read_json(path: str | os.PathLike, what: str = "file") -> Any:
    """Reads a JSON file.

    Args:
      path: path of the file.
      what: kind of file, for error messages.

    Raises:
      InputError: the file is missing, unreadable, not UTF-8 or not JSON.
    """
    text = read_text(path, what)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{what} {str(path)!r} is not valid JSON: {error.msg} at line {error.lineno}, "
            f"column {error.colno}"
        ) from error
    except ValueError as error:
        # Python refuses to parse integers of more than 4300 digits.
        raise InputError(f"{what} {str(path)!r} contains a number with too many digits") from error
    except RecursionError as error:
        raise InputError(f"{what} {str(path)!r} is nested too deeply") from error
