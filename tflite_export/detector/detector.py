"""`Detector`: runs any supported detector on images, in a few lines of code."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mobiledets_tf.errors import CheckFailed, InputError, unknown_name
from tflite_export.detector.file_detector import Detections, PostprocessedFile
from tflite_export.tflite import flatbuffer, labels, metadata, model_file, pixels, suppression
from tflite_export.tflite.suppression import Suppression

DEVICES = ("host_cpu", "coral")
SCORE_THRESHOLD = 0.3

# A detector's function, its input size, its number of classes and its class names.
_Opened = tuple[Callable[[np.ndarray], Detections], tuple[int, int], int, Sequence[str]]


class Detector:
    """A detector: any .tflite file with a post-process op, or a checkpoint of this project.

    Example:
      ```python
      from tflite_export.detector import Detector

      detector = Detector("runs/export/detector.tflite")
      found = detector("photo.jpg")
      for box, score, class_id in zip(found.boxes, found.scores, found.classes):
          print(detector.label(class_id), score, box)
      ```

    For a .tflite file, `score_threshold` and `max_detections` are set in memory; the file is not changed.

    Args:
      model: a .tflite file, or a training folder or a checkpoint in one (requires TensorFlow).
      label_file: plain or indexed class names; default: those in the file or in a labels file beside it.
      device: `host_cpu`, or `coral` for an attached Edge TPU.
      threads: number of threads that LiteRT or TensorFlow uses on the CPU.
      score_threshold: detections with a lower score are dropped.
      max_detections: maximum number of detections in an image; default: the file's own setting, or 100
        for a checkpoint.

    Attributes:
      labels: class names, starting with class 1; empty if none are known.
      num_classes: number of classes of the model.
      input_size: (height, width) to which images are resized.

    Raises:
      InputError: the model is not a detector or is damaged, the labels do not match its number of
        classes, or the device is unknown or absent.
      CheckFailed: the Edge TPU compiler rejects the file.
    """

    def __init__(
        self,
        model: str | os.PathLike,
        label_file: str | os.PathLike | None = None,
        device: str = "host_cpu",
        threads: int = 1,
        score_threshold: float = SCORE_THRESHOLD,
        max_detections: int | None = None,
    ):
        if device not in DEVICES:
            raise unknown_name("device", device, DEVICES)
        self.model = os.fspath(model)
        wanted = (score_threshold, max_detections)
        is_checkpoint = os.path.isdir(model) or os.path.exists(f"{self.model.removesuffix('.index')}.index")
        if is_checkpoint and device != "host_cpu":
            raise InputError(f"--device={device} runs only .tflite files, but {self.model!r} is a checkpoint")
        make = _checkpoint if is_checkpoint else _file
        self._run, self.input_size, self.num_classes, names = make(self.model, device, threads, *wanted)
        if label_file is not None:
            names = labels.read(label_file, self.num_classes)
        elif names and len(names) != self.num_classes:
            raise InputError(
                f"model {self.model!r} has {len(names)} labels but {self.num_classes} classes; set --labels"
            )
        self.labels = tuple(names)

    def __call__(self, image: np.ndarray | str | os.PathLike) -> Detections:
        """Detects in one image.

        Args:
          image: RGB pixels [height, width, 3] uint8, or the path of an image file.

        Returns:
          Boxes as fractions of the image, scores in descending order, classes counted from 1.

        Raises:
          InputError: the file cannot be read, or the array has another dtype or shape.
        """
        if not isinstance(image, np.ndarray):
            from tflite_export.detector import footage

            image = footage.read_image(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"an image should be RGB pixels [height, width, 3] uint8; given {image.dtype} "
                f"{list(image.shape)}"
            )
        return self._run(image)

    def label(self, class_id: int) -> str:
        """Returns the name of a class, counted from 1, or its number if the name is unknown."""
        return self.labels[class_id - 1] if 0 < class_id <= len(self.labels) else f"class {class_id}"


def _file(path: str, device: str, threads: int, threshold: float, count: int | None) -> _Opened:
    model_file.read(path)
    delegates = []
    if device == "coral":
        from tflite_export.devices import coral

        # The device is opened first: if none is attached, compiling would be wasted work.
        delegates = [coral.delegate()]
    data = _on_device(path, device)
    model = flatbuffer.unpack(data)
    settings, options = suppression.of_file(model), suppression.options_of(model)
    names = metadata.labels_of(Path(path).read_bytes()) or ()
    if settings is None or options is None:
        raise InputError(
            f"model {path!r} has no post-processing (TFLite_Detection_PostProcess); export it with "
            "--postprocess=tflite"
        )
    num_classes = options["num_classes"]
    suppression.apply(
        model,
        dataclasses.replace(
            settings, score_threshold=threshold, max_detections=count or settings.max_detections
        ),
    )
    file = PostprocessedFile(flatbuffer.pack(model), threads, delegates, path)

    def run(image: np.ndarray) -> Detections:
        found = file.run(pixels.as_input(pixels.resize(image, file.input_size), file.input_dtype))
        # A file from elsewhere may not sort its detections or drop low scores.
        return _above(found, threshold)

    return run, file.input_size, num_classes, names or _beside(path, num_classes)


def _on_device(path: str, device: str) -> bytes:
    """Returns the bytes to run: those of the compiled file on an Edge TPU."""
    if device != "coral":
        return Path(path).read_bytes()
    from tflite_export.devices import coral

    with tempfile.TemporaryDirectory(prefix="mobiledets-") as folder:
        try:
            return Path(coral.compiled(path, folder)).read_bytes()
        except RuntimeError as error:
            raise CheckFailed(f"model {path!r} cannot be compiled for the Edge TPU: {error}") from error


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


def _checkpoint(path: str, device: str, threads: int, threshold: float, count: int | None) -> _Opened:
    del device
    from mobiledets_tf.compat import tf
    from mobiledets_tf.models import postprocess
    from mobiledets_tf.weights import trained_network
    from tflite_export.detector.keras_detector import KerasDetector

    # TensorFlow allows setting this only once in a process.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    network = trained_network.resolve(checkpoint=path)
    settings = Suppression(score_threshold=threshold)
    settings = dataclasses.replace(settings, max_detections=count or settings.max_detections)
    anchors = postprocess.anchors(network.scaled(), network.image_size)
    detect = KerasDetector(trained_network.load_detector(network), anchors, settings)

    def run(image: np.ndarray) -> Detections:
        resized = pixels.resize(image, network.image_size)
        return detect(pixels.as_input(resized, np.dtype(np.float32)))

    return run, network.image_size, network.num_classes, network.labels
