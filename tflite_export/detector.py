"""`Detector`: any detector on images, in a few lines.

    from tflite_export.detector import Detector

    detector = Detector("runs/export/detector.tflite")
    found = detector("photo.jpg")
    for box, score, class_id in zip(found.boxes, found.scores, found.classes):
        print(detector.label(class_id), score, box)
"""

import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path

import numpy as np

from mobiledets_tf.errors import CheckFailed, InputError, unknown_name
from tflite_export import flatbuffer, inspect, labels, metadata, pixels, suppression
from tflite_export.file_detector import Detections, PostprocessedFile
from tflite_export.suppression import Suppression

DEVICES = ("host_cpu", "coral")
SCORE_THRESHOLD = 0.3


class Detector:
    """A detector: a .tflite file with a post-process op, whoever made it, or a checkpoint of this project.

    The suppression of a file is set to `score_threshold` and `max_detections` in memory; the file stays.

    Args:
      model: a .tflite file, or a training folder or a checkpoint in one (needs TensorFlow).
      label_file: class names, plain or indexed; default: those inside the file, or a labels file beside it.
      device: `host_cpu`, or `coral` for an attached Edge TPU.
      threads: of LiteRT on the CPU.
      score_threshold: lower scores are dropped.
      max_detections: kept for an image; default: as many as the file says, or 100 of a checkpoint.

    Attributes:
      labels: class names, the first for class 1; empty where none are known.
      num_classes: of the model.
      input_size: (height, width) that images are resized to.

    Raises:
      InputError: no detector, no labels of its number of classes, no such device, a damaged file.
      CheckFailed: the Edge TPU's compiler refuses the file.
    """

    def __init__(
        self, model: str | os.PathLike, label_file: str | os.PathLike | None = None,
        device: str = "host_cpu", threads: int = 1, score_threshold: float = SCORE_THRESHOLD,
        max_detections: int | None = None,
    ):  # fmt: skip
        if device not in DEVICES:
            raise unknown_name("device", device, DEVICES)
        self.model = os.fspath(model)
        wanted = (score_threshold, max_detections)
        is_checkpoint = os.path.isdir(model) or os.path.exists(f"{self.model.removesuffix('.index')}.index")
        if is_checkpoint and device != "host_cpu":
            raise InputError(f"device {device} runs .tflite files; {self.model!r} is a checkpoint")
        make = _checkpoint if is_checkpoint else _file
        self._run, self.input_size, self.num_classes, names = make(self.model, device, threads, *wanted)
        if label_file is not None:
            names = labels.read(label_file, self.num_classes)
        elif names and len(names) != self.num_classes:
            raise InputError(f"model {self.model!r}: its labels are {len(names)} names, and it has "
                             f"{self.num_classes} classes; give --labels")  # fmt: skip
        self.labels = tuple(names)

    def __call__(self, image: np.ndarray | str | os.PathLike) -> Detections:
        """Detects in one image.

        Args:
          image: RGB pixels [height, width, 3] uint8, or a path.

        Returns:
          Boxes in parts of the image, scores in falling order, classes counted from 1.

        Raises:
          InputError: the file cannot be read, or the array is no such image.
        """
        if not isinstance(image, np.ndarray):
            from tflite_export import footage

            image = footage.read_image(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(f"an image is RGB pixels [height, width, 3] uint8; given {image.dtype} "
                             f"{list(image.shape)}")  # fmt: skip
        return self._run(image)

    def label(self, class_id: int) -> str:
        """The name of a class, counted from 1; its number where no name is known."""
        return self.labels[class_id - 1] if 0 < class_id <= len(self.labels) else f"class {class_id}"


def _file(path: str, device: str, threads: int, threshold: float, count: int | None):
    inspect.read(path)
    delegates = []
    if device == "coral":
        from tflite_export.devices import coral

        # First: without a device nothing has to be compiled.
        delegates = [coral.delegate()]
    data = _on_device(path, device)
    model = flatbuffer.unpack(data)
    settings = suppression.of_file(model)
    names = metadata.labels_of(Path(path).read_bytes()) or ()
    if settings is None:
        raise InputError(f"model {path!r} has no post-processing (TFLite_Detection_PostProcess); export one "
                         "with --postprocess=tflite")  # fmt: skip
    num_classes = suppression.options_of(model)["num_classes"]
    suppression.apply(model, dataclasses.replace(
        settings, score_threshold=threshold, max_detections=count or settings.max_detections
    ))  # fmt: skip
    file = PostprocessedFile(flatbuffer.pack(model), threads, delegates, path)

    def run(image: np.ndarray) -> Detections:
        found = file.run(pixels.as_input(pixels.resize(image, file.input_size), file.input_dtype))
        # A file of others may have its own order, and drop nothing.
        return _above(found, threshold)

    return run, file.input_size, num_classes, names or _beside(path, num_classes)


def _on_device(path: str, device: str) -> bytes:
    """The bytes to run: for an Edge TPU those of the compiled file."""
    if device != "coral":
        return Path(path).read_bytes()
    from tflite_export.devices import coral

    with tempfile.TemporaryDirectory(prefix="mobiledets-") as folder:
        try:
            return Path(coral.compiled(path, folder)).read_bytes()
        except RuntimeError as error:
            raise CheckFailed(f"model {path!r} is not compiled for the Edge TPU: {error}") from error


def _beside(path: str, num_classes: int) -> tuple[str, ...]:
    for name in (labels.INDEXED, labels.PLAIN):
        beside = Path(path).parent / name
        if beside.is_file():
            return labels.read(beside, num_classes)
    return ()


def _above(found: Detections, threshold: float) -> Detections:
    scores = found.scores
    if not len(scores) or (scores[-1] >= threshold and (scores[1:] <= scores[:-1]).all()):
        return found
    order = np.argsort(-found.scores, kind="stable")
    order = order[found.scores[order] >= threshold]
    return Detections(found.boxes[order], found.scores[order], found.classes[order])


def _checkpoint(path: str, device: str, threads: int, threshold: float, count: int | None):
    del device
    from mobiledets_tf.compat import tf
    from mobiledets_tf.models import postprocess
    from tflite_export import export, source
    from tflite_export.evaluate import KerasDetector

    # Can be set once in a process.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    network = source.resolve(checkpoint=path)
    settings = Suppression(score_threshold=threshold)
    settings = dataclasses.replace(settings, max_detections=count or settings.max_detections)
    anchors = postprocess.anchors(network.scaled(), network.image_size)
    detect = KerasDetector(export.load_detector(network), anchors, settings)

    def run(image: np.ndarray) -> Detections:
        resized = pixels.resize(image, network.image_size)
        return detect(pixels.as_input(resized, np.dtype(np.float32)))

    return run, network.image_size, network.num_classes, network.labels
