"""COCO metrics of several detectors, .tflite files or Keras models, on the same images.

Every image is processed as in `data.preprocessing`: decoded, resized in float as in training,
then passed to the model as float or quantised, as the file's input requires. Boxes are clipped to the
image and scored by pycocotools at the image's original size.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from mobiledets_tf.data import preprocessing, records
from mobiledets_tf.data.coco_metrics import coco_metrics
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.models import postprocess
from tflite_export.detector.coco_results import to_coco
from tflite_export.detector.file_detector import Detections, PostprocessedFile, first
from tflite_export.tflite import model_file, runtime
from tflite_export.tflite.layout import INPUT, RAW_OUTPUTS
from tflite_export.tflite.pixels import quantize
from tflite_export.tflite.suppression import Suppression

# Maps an image [1, height, width, 3] float32 in [-1, 1] to its detections.
Detector = Callable[[np.ndarray], Detections]


class FileDetector:
    """A .tflite file with post-processing, or a file of this project without it.

    Args:
      model: a path, or the bytes of a file.
      anchors: [anchors, 4]; used for a file without post-processing.
      suppression: settings used for a file without post-processing.
      threads: number of threads of the runtime.

    Raises:
      InputError: the file cannot be run, or is not a detector.
    """

    def __init__(
        self,
        model: str | os.PathLike | bytes,
        anchors: np.ndarray,
        suppression: Suppression,
        threads: int = 1,
    ):
        content = model_file.parse(model) if isinstance(model, bytes) else model_file.read(model)
        if model_file.CUSTOM_OP in content.histogram():
            self._run: Detector = PostprocessedFile(model, threads)
        else:
            self._run = _RawFile(model, anchors, suppression, threads)

    def __call__(self, image: np.ndarray) -> Detections:
        return self._run(image)


class _RawFile:
    """A file of this project without post-processing; its outputs are read by their signature names."""

    def __init__(
        self, model: str | os.PathLike | bytes, anchors: np.ndarray, suppression: Suppression, threads: int
    ) -> None:
        interpreter = runtime.open_model(model, threads)
        name = "model" if isinstance(model, bytes) else str(model)
        signatures = list(interpreter.get_signature_list().values())
        if len(signatures) != 1:
            raise InputError(f"model {name!r} has {len(signatures)} signatures; a detector has one")
        self._runner = interpreter.get_signature_runner()
        inputs, self._outputs = self._runner.get_input_details(), self._runner.get_output_details()
        if set(inputs) != {INPUT} or set(self._outputs) != set(RAW_OUTPUTS):
            raise InputError(
                f"model {name!r} maps {sorted(inputs)} to {sorted(self._outputs)}; a detector without "
                f"post-processing maps ['{INPUT}'] to {sorted(RAW_OUTPUTS)}"
            )
        self._input = inputs[INPUT]
        self._anchors, self._suppression = anchors, suppression

    def __call__(self, image: np.ndarray) -> Detections:
        outputs = self._runner(**{INPUT: self._as_input(image)})
        raw_boxes, class_scores = (self._as_float(name, outputs[name]) for name in RAW_OUTPUTS)
        boxes = postprocess.decode(raw_boxes, self._anchors)
        *settings, nms = dataclasses.astuple(self._suppression)
        kept = postprocess.SUPPRESSIONS[nms](boxes, class_scores, *settings)
        return first(*(output.numpy() for output in kept))

    def _as_input(self, image: np.ndarray) -> np.ndarray:
        dtype = self._input["dtype"]
        return image if dtype == np.float32 else quantize(image, dtype, *self._input["quantization"])

    def _as_float(self, name: str, values: np.ndarray) -> np.ndarray:
        if values.dtype == np.float32:
            return values
        scale, zero_point = self._outputs[name]["quantization"]
        return (values.astype(np.float32) - zero_point) * np.float32(scale)


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image with the detections of each detector, to be drawn."""

    name: str
    pixels: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    found: dict[str, Detections]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics of several detectors on the same images.

    Attributes:
      metrics: the twelve COCO metrics of each detector.
      results: the detections of each detector as COCO results.
      images: number of images evaluated.
      shown: a few of the images, to be drawn.
    """

    metrics: dict[str, dict[str, float]]
    results: dict[str, list[dict[str, Any]]]
    images: int
    shown: list[Shown]


def evaluate(
    detectors: Mapping[str, Detector],
    files: list[str],
    image_size: tuple[int, int],
    max_images: int | None = None,
    show: int = 0,
    progress: Callable[[Iterable, int], Iterable] = lambda iterable, total: iterable,
    shown_detectors: Collection[str] | None = None,
) -> Evaluation:
    """Runs detectors over the images of TFRecords and scores them with pycocotools.

    Args:
      detectors: the detectors, by name.
      files: shards with the Object Detection API's features.
      image_size: (height, width) of the networks' input.
      max_images: evaluate only this many images, from the beginning; None for all.
      show: number of images to keep for drawing.
      progress: wraps the records; called with the iterable and their number.
      shown_detectors: names of the detectors to draw; None for all.

    Raises:
      InputError: there is no image, a record is damaged, or an image cannot be decoded.
      CheckFailed: a detector returns values that are not finite, or fewer images were read than the
        ground truth contains; no metrics are returned then.
    """
    ground_truth = _limited(records.ground_truth(files), max_images)
    wanted = ground_truth["images"]
    if not wanted:
        raise InputError(f"evaluation data {files[0]!r} contains no image")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in detectors}
    seen = set()
    shown: list[Shown] = []
    examples = itertools.islice(records.read_examples(files), max_images)
    # The ground truth lists its images in the order of the records.
    for image, example in zip(wanted, progress(examples, len(wanted)), strict=False):
        pixels = preprocessing.decode(example.encoded, example.image_id)
        network_input = preprocessing.normalize(preprocessing.resize(pixels, image_size))[np.newaxis]
        found = {name: detect(network_input) for name, detect in detectors.items()}
        for name, detections in found.items():
            _check_finite(name, detections, example.image_id)
            results[name] += to_coco(detections, image)
        seen.add(image["id"])
        if len(shown) < show and len(example.boxes):
            chosen = {name: found[name] for name in (found if shown_detectors is None else shown_detectors)}
            shown.append(Shown(example.image_id, pixels, example.boxes, example.classes, chosen))
    if len(seen) != len(wanted):
        raise CheckFailed(f"only {len(seen)} of {len(wanted)} images were evaluated, so no AP is reported")
    metrics = {name: coco_metrics(ground_truth, detections) for name, detections in results.items()}
    return Evaluation(metrics, results, len(seen), shown)


def _check_finite(name: str, detections: Detections, image_id: str) -> None:
    if not (np.isfinite(detections.boxes).all() and np.isfinite(detections.scores).all()):
        raise CheckFailed(f"the {name} detector returns numbers that are not finite on image {image_id}")


def _limited(ground_truth: dict[str, Any], max_images: int | None) -> dict[str, Any]:
    """Limits the ground truth to the first images."""
    if max_images is None:
        return ground_truth
    kept = ground_truth["images"][:max_images]
    ids = {image["id"] for image in kept}
    annotations = [a for a in ground_truth["annotations"] if a["image_id"] in ids]
    return ground_truth | {"images": kept, "annotations": annotations}
