"""Sources of images: a file, a folder, a video or a camera. Reads and writes images with OpenCV."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.native_output import held_back

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
_CAMERA = re.compile(r"camera:(\d{1,3})")
# Containers derive the frame count from the duration, so a complete video may have slightly fewer frames.
_WHOLE = 0.95
_FRAMES_PER_S = 25.0


@dataclasses.dataclass(frozen=True)
class Frame:
    """An image and its name, which is a path inside the folder or a number in a video."""

    name: str
    pixels: np.ndarray


def read_image(path: str | os.PathLike, size: tuple[int, int] | None = None) -> np.ndarray:
    """Reads RGB pixels [height, width, 3] uint8 of an image file, rotated according to its EXIF tag.

    Args:
      path: the image file.
      size: annotated (width, height); an image that was annotated without rotation is not rotated.

    Raises:
      InputError: the file is missing or not an image, or its size differs from the annotation.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InputError(f"cannot read image {str(path)!r}: {error.strerror}") from error
    image = _decoded(path, cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"image {str(path)!r} cannot be decoded; formats: {', '.join(IMAGES)}")
    if size is not None and image.shape[1::-1] != size:
        image = _decoded(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None or image.shape[1::-1] != size:
            raise InputError(f"image {str(path)!r} does not have its annotated size {size[0]}x{size[1]}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decoded(path: str, how: int) -> np.ndarray | None:
    try:
        return cv2.imread(path, how)
    except cv2.error:
        return None


class Folder:
    """The images of a folder and its subfolders, or a single image.

    Raises:
      InputError: there is no image.
    """

    def __init__(self, path: str | os.PathLike):
        path = Path(path)
        self.is_single = path.is_file()
        if self.is_single:
            self.folder, self.names = path.parent, [path.name]
            return
        self.folder = path
        found = (Path(root) / name for root, _, names in os.walk(path) for name in names)
        self.names = sorted(
            file.relative_to(path).as_posix()
            for file in found
            if file.suffix.lower() in IMAGES and not file.name.startswith(".")
        )
        if not self.names:
            raise InputError(f"folder {str(path)!r} contains no images; formats: {', '.join(IMAGES)}")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, name: str, size: tuple[int, int] | None = None) -> Frame:
        """Reads the image with one of `names`; raises the same errors as `read_image`."""
        return Frame(name, read_image(self.folder / name, size))


class Video:
    """The frames of a video file or a camera, in order.

    Args:
      source: a path, or a camera such as `camera:0`.

    Raises:
      InputError: the video or the camera cannot be opened.
    """

    def __init__(self, source: str):
        camera = _CAMERA.fullmatch(source)
        self.is_camera = camera is not None
        self._source = source
        with contextlib.suppress(RuntimeError), held_back():
            self._capture = cv2.VideoCapture(int(camera[1]) if camera else source)
        if not self._capture.isOpened():
            raise InputError(
                f"camera {camera[1]} cannot be opened; is /dev/video{camera[1]} attached and not in use?"
                if camera
                else f"video {source!r} cannot be opened; it is truncated or in an unknown format"
            )
        self.frames_per_s = self._capture.get(cv2.CAP_PROP_FPS) or _FRAMES_PER_S
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        # Live streams report 0 or a negative number.
        self.count = count if count > 0 and not self.is_camera else None

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames; raises CheckFailed after the last frame of a truncated video."""
        number = 0
        while True:
            with held_back():
                there, image = self._capture.read()
            if not there or image is None:
                break
            number += 1
            yield Frame(f"{number:06d}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        if self.is_camera:
            raise CheckFailed(f"{self._source} returns no more images; was it unplugged, or is it in use?")
        if self.count is not None and number < _WHOLE * self.count - 1 or not number:
            raise CheckFailed(
                f"video {self._source!r} ends after {number} of {self.count} frames; it is truncated"
            )

    def close(self) -> None:
        """Releases the file or the camera."""
        self._capture.release()


def open_source(path: str) -> Folder | Video:
    """Opens what `--images` names: an image, a folder, a video file or `camera:N`.

    Raises:
      InputError: the path is none of these, or does not exist.
    """
    if path.startswith("camera:"):
        if not _CAMERA.fullmatch(path):
            raise InputError(f"--images={path}; allowed for a camera: camera:0, camera:1, ...")
        return Video(path)
    if not os.path.exists(path):
        raise InputError(f"--images={path} does not exist")
    suffix = Path(path).suffix.lower()
    if os.path.isdir(path) or suffix in IMAGES:
        return Folder(path)
    if suffix in VIDEOS:
        return Video(path)
    allowed = ", ".join((*IMAGES, *VIDEOS))
    raise InputError(f"--images={path} is not an image, video, folder or camera:N; formats: {allowed}")


class VideoWriter:
    """Writes an .mp4 file; all frames have the size of the first one."""

    def __init__(self, path: str | os.PathLike, frames_per_s: float):
        self._path, self._rate = os.fspath(path), frames_per_s
        self._writer: cv2.VideoWriter | None = None

    def write(self, pixels: np.ndarray) -> None:
        """Adds a frame [height, width, 3] uint8, RGB."""
        if self._writer is None:
            code = cv2.VideoWriter_fourcc(*"mp4v")
            size = pixels.shape[1::-1]
            with held_back():
                self._writer = cv2.VideoWriter(self._path, code, self._rate, size)
            if not self._writer.isOpened():
                raise InputError(f"video {self._path!r} cannot be written")
        self._writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finishes and closes the file."""
        if self._writer is not None:
            self._writer.release()


# Distinguishable colours (RGB), assigned to classes in turn.
_COLOURS = (
    (230, 60, 60),
    (40, 160, 70),
    (60, 110, 230),
    (240, 150, 30),
    (150, 70, 190),
    (20, 160, 170),
    (220, 80, 160),
    (130, 110, 40),
)


def annotated(pixels: np.ndarray, boxes: np.ndarray, texts: Sequence[str], classes: np.ndarray) -> np.ndarray:
    """Returns a copy of an image with boxes and their labels drawn on it.

    Args:
      pixels: [height, width, 3] uint8, RGB.
      boxes: [n, 4] (ymin, xmin, ymax, xmax) as fractions of the image.
      texts: the label of each box. Letters that OpenCV's font lacks are shown as `?`.
      classes: class ids of the boxes, which determine the colours.
    """
    picture = np.ascontiguousarray(pixels).copy()
    height, width = picture.shape[:2]
    line = max(1, round(min(height, width) / 250))
    size = max(0.35, min(height, width) / 900)
    for (top, left, bottom, right), words, class_id in zip(boxes, texts, classes, strict=True):
        colour = _COLOURS[int(class_id) % len(_COLOURS)]
        corner = (int(left * width), int(top * height))
        cv2.rectangle(picture, corner, (int(right * width), int(bottom * height)), colour, line)
        words = words.encode("ascii", "replace").decode()
        (wide, high), below = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, size, line)
        base = max(corner[1], high + below)
        cv2.rectangle(picture, (corner[0], base - high - below), (corner[0] + wide, base), colour, -1)
        cv2.putText(
            picture,
            words,
            (corner[0], base - below),
            cv2.FONT_HERSHEY_SIMPLEX,
            size,
            (255, 255, 255),
            line,
            cv2.LINE_AA,
        )
    return picture


def write_image(path: str | os.PathLike, pixels: np.ndarray) -> None:
    """Writes an image atomically; the file name's extension determines the format."""
    from mobiledets_tf import files

    done, data = cv2.imencode(Path(path).suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not done:
        raise InputError(f"image {str(path)!r} cannot be encoded")
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
