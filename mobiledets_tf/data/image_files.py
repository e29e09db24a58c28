"""Reads image files: resolves paths safely, decodes every pixel, and encodes RGB JPEGs."""

import functools
import io
import os
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from mobiledets_tf.data.text import show

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
# Pixel types that convert to 8-bit RGB without loss of meaning; 16-bit and float pixels do not.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp"})
_EXIF_ORIENTATION = 0x0112
# EXIF orientations that swap width and height.
_QUARTER_TURNS = frozenset({5, 6, 7, 8})
_JPEG_QUALITY = 95


# PIL warns about large images and rejects those above twice that size; the rejection is enough.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PictureError(Exception):
    """Raised when an image file cannot be used; the message is the reason."""


@dataclass(frozen=True)
class Folder:
    """The image files in a folder, addressed by their paths relative to it."""

    path: Path

    def read(self, file_name: str) -> bytes:
        """Reads the bytes of an image file.

        Raises:
          PictureError: as for `locate`.
          OSError: the file cannot be read.
        """
        return locate(self.path, file_name).read_bytes()

    def names(self) -> Iterator[str]:
        """Yields the names of files with an image suffix, in no particular order; hidden ones are skipped."""
        for folder, folders, files in os.walk(self.path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = os.path.relpath(folder, self.path)
            for name in files:
                if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith("."):
                    yield name if inside == "." else os.path.join(inside, name)


def locate(folder: Path, file_name: str) -> Path:
    """Returns the path of an image inside `folder`.

    Raises:
      PictureError: the name leads out of the folder (by an absolute path, `..` or a link), or there
        is no such file; the message then suggests a file with nearly the same name, if there is one.
    """
    name = show(file_name)
    path = folder / file_name
    if os.path.isabs(file_name) or ".." in path.parts[len(folder.parts) :]:
        raise PictureError(f"path {name} leaves the folder of images")
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        is_file = path.is_file()
        exists = is_file or path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # name too long, NUL character, loop of links
        raise PictureError(f"path {name} cannot be used: {getattr(error, 'strerror', error)}") from error
    if not inside:
        raise PictureError(f"path {name} leaves the folder of images through a link")
    if not exists:
        raise PictureError(f"file {name} is missing{_near_file(folder, file_name)}")
    if not is_file:
        raise PictureError(f"{name} is not a file")
    return path


def _near_file(folder: Path, file_name: str) -> str:
    """Returns ' (did you mean X?)' if the same folder has a file with a similar name, otherwise ''."""
    parent = (folder / file_name).parent
    try:
        names = _plain_names(str(parent), parent.stat().st_mtime_ns)
    except OSError:
        return ""
    name = os.path.basename(file_name)
    found = names.get(_plain(name)) or names.get(os.path.splitext(_plain(name))[0])
    if found is None:
        return ""
    same = unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", name)
    how = ", the same name in another Unicode form" if same else ""
    return f" (did you mean {show(os.path.join(os.path.dirname(file_name), found))}{how}?)"


@functools.lru_cache(maxsize=4)
def _plain_names(folder: str, changed: int) -> dict[str, str]:
    """Maps the plain form of each name in a folder, with and without suffix, to the name.

    `changed` is the folder's modification time, which only invalidates the cache.
    """
    del changed
    names = sorted(os.listdir(folder))
    stems = {os.path.splitext(_plain(name))[0]: name for name in names}
    return stems | {_plain(name): name for name in names}


def _plain(name: str) -> str:
    """Normalises a name so that differences in case, Unicode form or the spelling of .jpg disappear."""
    stem, suffix = os.path.splitext(unicodedata.normalize("NFC", name).casefold())
    return stem + {".jpeg": ".jpg", ".jpe": ".jpg"}.get(suffix, suffix)


@dataclass(frozen=True)
class Look:
    """Properties of a usable image file.

    Attributes:
      size: stored (width, height) in pixels.
      orientation: EXIF orientation; 1 if the file has none.
      is_repaired: whether the decoder used in training rejects the file, so that `as_jpeg` re-encodes
        it.
    """

    size: tuple[int, int]
    orientation: int
    is_repaired: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) in pixels after the EXIF orientation is applied."""
        return self.size[::-1] if self.orientation in _QUARTER_TURNS else self.size


def look(data: bytes, size: tuple[int, int], as_stored: bool = False) -> Look:
    """Decodes an image file, with the decoder used in training if records will contain it unchanged.

    Args:
      data: content of the file.
      size: annotated (width, height) in pixels.
      as_stored: as in `decode`.

    Raises:
      PictureError: as for `decode`.
    """
    image, orientation = _opened(data)
    wanted = _is_wanted(image, size, as_stored)
    reads = wanted and _model_reads(data)
    if not reads:
        decode(data, size, as_stored)
    return Look(image.size, orientation, wanted and not reads)


def _opened(data: bytes) -> tuple[Image.Image, int]:
    """Opens an image without decoding its pixels; returns it and its EXIF orientation."""
    try:
        image = _open(data)
        return image, _orientation(image)
    except UnidentifiedImageError:
        raise PictureError(_UNREADABLE) from None
    except Exception as error:  # Damaged files make PIL raise almost anything.
        raise PictureError(f"cannot be decoded: {error}") from error


def _is_wanted(image: Image.Image, size: tuple[int, int], as_stored: bool) -> bool:
    """Returns whether records keep the file unchanged, if the decoder used in training accepts it."""
    return _is_plain(image) and image.size == size and (as_stored or _orientation(image) == 1)


def head(data: bytes) -> Look:
    """Reads the header of an image file without decoding its pixels.

    Raises:
      PictureError: the file is not an image.
    """
    try:
        image = _open(data)
        return Look(image.size, _orientation(image), False)
    except Exception as error:  # Damaged files make PIL raise almost anything.
        raise PictureError(_UNREADABLE) from error


_UNREADABLE = f"is not a readable image; formats: {', '.join(FORMATS)}"


def decode(data: bytes, size: tuple[int, int], as_stored: bool = False) -> Image.Image:
    """Decodes every pixel of an image file of the given (width, height).

    A file may contain an EXIF orientation that has to be applied to show it upright. The annotated
    size tells whether the boxes refer to the stored or the upright image. If it does not (half
    turns, mirroring, square images), the upright image is assumed, as viewers and OpenCV show it.

    Args:
      data: content of the file.
      size: annotated (width, height) in pixels.
      as_stored: if true, the EXIF orientation is never applied.

    Raises:
      PictureError: the file is unreadable or truncated, or has another size, format or pixel type.
    """
    try:
        image = _open(data)
        if size in (image.size, image.size[::-1]):
            image.load()
            image = _as_annotated(image, size, as_stored)
    except UnidentifiedImageError:
        raise PictureError(_UNREADABLE) from None
    # Damaged files make PIL raise almost anything (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        raise PictureError(f"cannot be decoded: {error}") from error
    if image.size != size:
        given, expected = (f"{width}x{height}" for width, height in (image.size, size))
        raise PictureError(f"is {given}, but the annotations say {expected}")
    if image.mode not in _MODES:
        raise PictureError(f"has pixels of type {image.mode}; save it with 8 bits per channel")
    return image


def _open(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    # PIL also reads an orientation from XMP, which viewers ignore.
    for key in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(key, None)
    return image


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
    return value if value in range(2, 9) else 1


def _as_annotated(image: Image.Image, size: tuple[int, int], as_stored: bool) -> Image.Image:
    """Returns the upright image if it has the annotated size, otherwise the stored one without its tag."""
    for key in ("xmp", "XML:com.adobe.xmp"):  # Loading the pixels of a PNG may restore these keys.
        image.info.pop(key, None)
    # The decoder used in training ignores the tag, so a file whose stored pixels are wanted stays unchanged.
    if as_stored or _orientation(image) == 1:
        return image
    upright = ImageOps.exif_transpose(image)
    # A copy has no format, so it is encoded again, without the tag.
    return upright if upright.size == size else image.copy()


def _is_plain(image: Image.Image) -> bool:
    """Returns whether an image is an RGB JPEG."""
    return image.format in ("JPEG", "MPO") and image.mode == "RGB"


def _model_reads(jpeg: bytes) -> bool:
    """Returns whether the decoder used in training and evaluation, stricter than PIL, accepts a JPEG."""
    from mobiledets_tf.compat import tf

    # A missing end marker after the last scan is detected here, because the decoder would print a
    # warning for each such file.
    if jpeg.rfind(b"\xff\xd9") < jpeg.rfind(b"\xff\xda"):
        return False
    try:
        # Passing plain bytes makes eager execution slower: the conversion is a quarter of the time.
        tf.io.decode_jpeg(tf.constant(jpeg), channels=3)
    except tf.errors.OpError:
        return False
    return True


def as_jpeg(
    data: bytes, size: tuple[int, int], as_stored: bool = False, decodes: bool | None = None
) -> bytes:
    """Returns the file unchanged if it is an RGB JPEG that training can decode, otherwise re-encodes it.

    Alpha is dropped; the JPEG quality is 95.

    Args:
      data: content of the file.
      size: annotated (width, height) in pixels.
      as_stored: as in `decode`.
      decodes: whether the decoder used in training accepts the file, if `look` has already decoded these
        bytes; None tries it.

    Raises:
      PictureError: as for `decode`.
    """
    if _is_wanted(_opened(data)[0], size, as_stored) and (_model_reads(data) if decodes is None else decodes):
        return data
    return encode(decode(data, size, as_stored).convert("RGB"), _JPEG_QUALITY)


def encode(image: Image.Image, quality: int) -> bytes:
    """Encodes an RGB image as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def as_bitmap(data: bytes, side: int) -> bytes:
    """Converts an encoded image to an RGB bitmap, shrunk so that no side exceeds `side` pixels.

    Raises:
      PictureError: the image cannot be decoded.
    """
    try:
        image = _open(data).convert("RGB")
    except Exception as error:  # Damaged files make PIL raise almost anything.
        raise PictureError(f"cannot be decoded: {error}") from error
    image.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    return buffer.getvalue()


def grey_thumbnail(data: bytes, side: int) -> bytes:
    """Returns side * side grey levels of an image file, decoded as fast as possible.

    Raises:
      PictureError: the image cannot be decoded.
    """
    try:
        image = _open(data)
        # A JPEG is decoded at a reduced size, down to an eighth, which is enough.
        image.draft("L", (2 * side, 2 * side))
        return image.convert("L").resize((side, side), Image.Resampling.BOX).tobytes()
    except Exception as error:  # Damaged files make PIL raise almost anything.
        raise PictureError(f"cannot be decoded: {error}") from error
