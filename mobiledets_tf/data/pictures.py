"""Image files on disk: safe paths, real decoding, RGB JPEG bytes."""

import io
import os
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from mobiledets_tf.data.text import show

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
# What converts to 8-bit RGB without loss of meaning; 16-bit and float pixels do not.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_EXIF_ORIENTATION = 0x0112
_JPEG_QUALITY = 95


# PIL warns of large images and refuses those of twice the size; the refusal is enough.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PictureError(Exception):
    """Why an image file cannot be used."""


def locate(folder: Path, file_name: str) -> Path:
    """The path of an image inside `folder`.

    Raises:
      PictureError: the name leads out of the folder (absolute, `..`, a link), or no file is there.
    """
    name = show(file_name)
    path = folder / file_name
    if os.path.isabs(file_name) or ".." in path.parts[len(folder.parts) :]:
        raise PictureError(f"path {name} leaves the folder of images")
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        exists, is_file = path.exists(), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL inside, a loop of links
        raise PictureError(f"path {name} cannot be used: {getattr(error, 'strerror', error)}") from error
    if not inside:
        raise PictureError(f"path {name} leaves the folder of images through a link")
    if not exists:
        raise PictureError(f"file {name} is missing")
    if not is_file:
        raise PictureError(f"{name} is not a file")
    return path


def decode(data: bytes, size: tuple[int, int]) -> Image.Image:
    """Decodes every pixel of an image file of the given (width, height).

    A file may say that it has to be turned to be upright (EXIF orientation). The annotated size
    tells whether the boxes are of the stored or of the upright picture; where it cannot (half
    turns, mirrors, squares), they are of the upright one, which viewers and OpenCV show.

    Raises:
      PictureError: unreadable, truncated, or of another size, format or pixel type.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if size in (image.size, image.size[::-1]):
            image.load()
            image = _as_annotated(image, size)
    except UnidentifiedImageError:
        raise PictureError(f"is not a readable image; formats: {', '.join(FORMATS)}") from None
    # Damaged files make PIL raise almost anything (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        raise PictureError(f"cannot be decoded: {error}") from error
    if image.size != size:
        given, expected = (f"{width}x{height}" for width, height in (image.size, size))
        raise PictureError(f"is {given}, the annotations say {expected}")
    if image.mode not in _MODES:
        raise PictureError(f"has pixels of type {image.mode}; save it with 8 bits a channel")
    return image


def _as_annotated(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The upright picture if it has the annotated size, else the stored one without its tag."""
    if image.getexif().get(_EXIF_ORIENTATION, 1) in (0, 1):
        return image
    upright = ImageOps.exif_transpose(image)
    # A copy has no format: it is encoded anew, without the tag.
    return upright if upright.size == size else image.copy()


def as_jpeg(data: bytes, size: tuple[int, int]) -> bytes:
    """The same file if it is an RGB JPEG; else its pixels as one, alpha dropped, quality 95.

    Raises:
      PictureError: as `decode`.
    """
    image = decode(data, size)
    if image.format in ("JPEG", "MPO") and image.mode == "RGB":
        return data
    return encode(image.convert("RGB"), _JPEG_QUALITY)


def encode(image: Image.Image, quality: int) -> bytes:
    """JPEG bytes of an RGB image."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def as_bitmap(data: bytes, side: int) -> bytes:
    """An encoded image as RGB bitmap, shrunk to at most `side` pixels where it is larger.

    Raises:
      PictureError: it cannot be decoded.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS).convert("RGB")
    except Exception as error:  # damaged files make PIL raise almost anything
        raise PictureError(f"cannot be decoded: {error}") from error
    image.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    return buffer.getvalue()
