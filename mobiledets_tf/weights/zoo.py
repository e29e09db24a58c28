"""Published MobileDet checkpoints of the TF1 detection zoo, selected by name.

Source: `tf1_detection_zoo.md` of tensorflow/models, research/object_detection. An archive is
downloaded once and checked against the network that its name refers to; its checkpoint is stored in a
separate folder. Nothing else in an archive is unpacked.
"""

import contextlib
import errno
import os
import re
import shutil
import ssl
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from mobiledets_tf.data.folders import staging_folder
from mobiledets_tf.errors import InputError, unknown_name
from mobiledets_tf.folder_lock import locked

PREFIX = "zoo:"
NAMES = ("cpu", "edgetpu", "dsp")
ADDRESS = "https://download.tensorflow.org/models/object_detection/"
CACHE_VARIABLE = "MOBILEDETS_CACHE"
_ARCHIVE = "ssdlite_mobiledet_{}_320x320_coco_2020_05_19.tar.gz"
# Files of a checkpoint inside an archive; some archives contain quantised checkpoints beside float ones.
_MEMBER = re.compile(r"(?P<folder>.*/)?model\.ckpt[^/]*\.(?P<kind>index|data-\d{5}-of-\d{5})")
_CHECKPOINT = "model.ckpt"
_TIMEOUT_S = 30
_CHUNK = 1 << 20
# A ValueError is raised for a header that is not a number.
_NETWORK_ERRORS = (
    urllib.error.URLError,
    HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
    ValueError,
)
# Maximum size in bytes; the largest published archive is smaller than 100 MB.
_LARGEST = 1 << 30


def is_name(path: str) -> bool:
    """Returns whether a value of `--init_from` names a published checkpoint."""
    return path.startswith(PREFIX)


def check_name(path: str) -> str:
    """Returns the network's name in `zoo:NAME`.

    Raises:
      InputError: the zoo has no such network.
    """
    name = path.removeprefix(PREFIX)
    if name not in NAMES:
        raise unknown_name(f"network of {PREFIX}", name, NAMES)
    return name


def check_exists(flag: str, path: str) -> None:
    """Raises InputError if a path of weights does not exist, or names published weights the zoo lacks."""
    if is_name(path):
        check_name(path)
    elif "://" not in path and not os.path.exists(path) and not os.path.exists(f"{path}.index"):
        raise InputError(f"--{flag}={path} does not exist")


def local(path: str, cache: str | None = None) -> str:
    """Returns a local path of weights; published weights, which `path` may name, are downloaded.

    Args:
      path: path of the weights, or `zoo:NAME`.
      cache: folder for downloaded weights; None for the default folder.
    """
    return checkpoint(path, cache_folder(cache)) if is_name(path) else path


def cache_folder(given: str | None = None) -> Path:
    """Returns the folder of the archives: the given one, $MOBILEDETS_CACHE, or the user's cache."""
    return Path(given or os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "mobiledets")


def checkpoint(path: str, cache: str | os.PathLike | None = None) -> str:
    """Returns the checkpoint of `zoo:NAME` and downloads it if it is not in the cache.

    Args:
      path: `zoo:cpu`, `zoo:edgetpu` or `zoo:dsp`.
      cache: cache folder; see `cache_folder`. An archive put there by hand is used and kept.

    Returns:
      A checkpoint prefix for `tf1_checkpoint.read`.

    Raises:
      InputError: the download failed (the message contains the address for a manual download), there is
        no space left, or the archive is incomplete, damaged, or contains another network.
    """
    name = check_name(path)
    folder = cache_folder(None if cache is None else os.fspath(cache))
    archive = folder / _ARCHIVE.format(name)
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    if unpacked.is_dir():
        return str(unpacked / _CHECKPOINT)
    with _readable_errors(folder), locked(folder, "weights cache"):
        if unpacked.is_dir():  # Another process has unpacked it in the meantime.
            return str(unpacked / _CHECKPOINT)
        by_hand = archive.exists()
        source = archive if by_hand else _downloaded(archive)
        try:
            _unpack(source, unpacked, name)
        finally:
            if not by_hand:
                source.unlink(missing_ok=True)
    return str(unpacked / _CHECKPOINT)


@contextlib.contextmanager
def _readable_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"no space left in the cache {str(folder)!r}; use another --weights_cache"
            ) from error
        raise InputError(f"cache {str(folder)!r} cannot be used: {error.strerror or error}") from error


# --- over the network -------------------------------------------------------------------------


def _downloaded(archive: Path) -> Path:
    """Downloads the archive under a temporary name, resuming an interrupted download; returns its path."""
    part, address = archive.with_name(archive.name + ".part"), ADDRESS + archive.name
    try:
        _download(address, part)
    except _NETWORK_ERRORS as error:
        raise InputError(
            f"{address} cannot be downloaded: {_reason(error)}; rerun the command to resume, or download "
            f"the file by hand and put it into {str(archive.parent)!r}"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            part.unlink(missing_ok=True)
            _mark(part).unlink(missing_ok=True)
        raise
    return part


def _mark(part: Path) -> Path:
    """Returns the path at which the ETag of a partially downloaded file is stored."""
    return part.with_name(part.name + ".etag")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return " ".join(str(getattr(error, "reason", "") or error or type(error).__name__).split())


class _StaySecure(urllib.request.HTTPRedirectHandler):
    """Refuses redirects from https to any other scheme."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(address: str, part: Path) -> None:
    """Downloads a file into `part`, resuming at its end if the server supports it.

    The ETag of the file is stored beside `part`, so that parts of two versions are never combined.
    """
    mark = _mark(part)
    there = part.stat().st_size if part.exists() and mark.exists() else 0
    request = urllib.request.Request(address)
    if there:
        request.add_header("Range", f"bytes={there}-")
        request.add_header("If-Range", mark.read_text(encoding="utf-8"))
    opener = urllib.request.build_opener(_StaySecure)
    with opener.open(request, timeout=_TIMEOUT_S) as answer:
        resumed = answer.status == 206
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
            mark.unlink()
            raise urllib.error.URLError("the server resumed at a wrong offset")
        there = there if resumed else 0
        length = int(answer.headers.get("Content-Length") or 0)
        if there + length > _LARGEST:
            raise urllib.error.URLError(f"the file has {there + length} bytes; allowed: {_LARGEST}")
        if not resumed:
            mark.unlink(missing_ok=True)
        if answer.headers.get("ETag", "").startswith('"'):
            mark.write_text(answer.headers["ETag"], encoding="utf-8")
        got = _copy(answer, part, there, length, address)
    if length and got < there + length:
        raise urllib.error.URLError(f"the connection ended after {got} of {there + length} bytes")
    mark.unlink(missing_ok=True)


def _copy(answer: Any, part: Path, there: int, length: int, address: str) -> int:
    """Appends the response to `part` and returns the size of the file."""
    from tqdm import tqdm

    show = {"unit": "B", "unit_scale": True, "desc": address.rpartition("/")[2], "dynamic_ncols": True}
    with (
        open(part, "ab" if there else "wb") as file,
        tqdm(total=there + length if length else None, initial=there, **show) as bar,
    ):
        while chunk := answer.read(_CHUNK):
            there += file.write(chunk)
            bar.update(len(chunk))
            if there > _LARGEST:
                raise urllib.error.URLError(f"the file has more than the allowed {_LARGEST} bytes")
    return there


# --- out of the archive -----------------------------------------------------------------------


def _unpack(archive: Path, unpacked: Path, name: str) -> None:
    """Unpacks an archive's checkpoint into its folder after checking that it belongs to the network."""
    # Messages show the final name of the archive; a download has a temporary one.
    shown = str(unpacked.with_name(unpacked.name + ".tar.gz"))
    with staging_folder(unpacked) as staging:
        try:
            _take_checkpoint(archive, staging, shown)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(f"archive {shown!r} is truncated or damaged: {error}") from error
        _check(staging, shown, name)
        os.rename(staging, unpacked)


def _take_checkpoint(archive: Path, staging: Path, shown: str) -> None:
    """Extracts the only float checkpoint of an archive; reads the whole archive to verify its checksum."""
    with tarfile.open(archive, "r:gz") as tar:
        found: dict[str, dict[str, tarfile.TarInfo]] = {}
        for member in tar:
            _check_member(member, shown)
            match = _MEMBER.fullmatch(member.name)
            if match:
                found.setdefault(match["folder"] or "", {})[match["kind"]] = member
        floats = [folder for folder in found if not re.search("uint8|quant", folder.lower())]
        if len(floats) != 1:
            raise InputError(f"archive {shown!r} contains {len(floats)} float checkpoints; allowed: 1")
        missing = {"index", "data-00000-of-00001"} - found[floats[0]].keys()
        if missing:
            raise InputError(f"archive {shown!r} contains a checkpoint without its .{missing.pop()} file")
        for kind, member in found[floats[0]].items():
            source = tar.extractfile(member)
            if source is None:
                raise InputError(f"archive {shown!r} holds {member.name!r}, which is no plain file")
            with source, open(staging / f"{_CHECKPOINT}.{kind}", "wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
        # The checksum is at the end of the archive.
        while tar.fileobj.read(_CHUNK):
            pass


def _check_member(member: tarfile.TarInfo, shown: str) -> None:
    """Raises InputError for an archive member that is unsafe to unpack."""
    parts = Path(member.name).parts
    if member.name.startswith("/") or ".." in parts:
        raise InputError(f"archive {shown!r} contains {member.name!r}, which is outside its folder")
    if not member.isfile() and not member.isdir():
        raise InputError(f"archive {shown!r} contains {member.name!r}, which is a link or a special file")
    if member.size > _LARGEST:
        raise InputError(f"archive {shown!r}: {member.name!r} has {member.size} bytes; allowed: {_LARGEST}")


def _check(folder: Path, shown: str, name: str) -> None:
    """Checks that the checkpoint contains all variables of the network with their shapes and values."""
    from mobiledets_tf import architecture
    from mobiledets_tf.weights import tf1_checkpoint

    try:
        tf1_checkpoint.read(folder / _CHECKPOINT, architecture.load(name))
    except InputError as error:
        text = str(error).replace(str(folder / _CHECKPOINT), _CHECKPOINT)
        raise InputError(f"archive {shown!r} does not contain network {name!r}: {text}") from error
