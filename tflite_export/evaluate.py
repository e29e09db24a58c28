"""COCO metrics of detectors, a .tflite file or a Keras model, on the same images.

Every image goes the way of `tflite_export.images`: decoded, resized in float as in training,
then fed as float or quantised as the file's input asks. Boxes are clipped to the image and
measured by pycocotools on the image's own size.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mobiledets_tf.compat import keras, tf
from mobiledets_tf.data import records
from mobiledets_tf.data.coco_metrics import coco_metrics
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.models import postprocess
from tflite_export import images, runtime
from tflite_export.postprocess import DETECTION_OUTPUTS, INPUT, RAW_OUTPUTS, Suppression


@dataclasses.dataclass(frozen=True)
class Detections:
    """What a detector found in one image, best first.

    Attributes:
      boxes: [n, 4] float32 (ymin, xmin, ymax, xmax) in parts of the image, in [0, 1].
      scores: [n] float32.
      classes: [n] int, counted from 1 as in label maps.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


# Takes an image [1, height, width, 3] float32 in [-1, 1].
Detector = Callable[[np.ndarray], Detections]


class KerasDetector:
    """The float model with the post-processing that the file has.

    Args:
      model: a model of `mobiledets_tf.models.build_detector`.
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax).
      suppression: settings of the post-processing.
    """

    def __init__(self, model: keras.Model, anchors: np.ndarray, suppression: Suppression):
        settings = dataclasses.astuple(suppression)

        @tf.function
        def run(image):
            return postprocess.detections(*model(image, training=False), anchors, *settings)

        self._run = run

    def __call__(self, image: np.ndarray) -> Detections:
        return _first([output.numpy() for output in self._run(tf.constant(image))])


class FileDetector:
    """A .tflite file of this project, with or without post-processing.

    Args:
      path: the file. Its outputs are read by name, since their order varies.
      anchors: [anchors, 4]; needed for a file without post-processing.
      suppression: settings for a file without post-processing.

    Raises:
      InputError: the file cannot be run, or its signature is another one.
    """

    def __init__(self, path: str | os.PathLike, anchors: np.ndarray, suppression: Suppression):
        # LiteRT 2.3.0 loses detections when its post-process op runs on two threads: AP 0.528 in place
        # of 0.592 for one and the same file, with equal boxes and scores going into the op.
        self._interpreter = runtime.open_model(path, threads=1)
        signatures = list(self._interpreter.get_signature_list().values())
        if len(signatures) != 1:
            raise InputError(f"model {str(path)!r} has {len(signatures)} signatures; a detector has one")
        self._runner = self._interpreter.get_signature_runner()
        inputs, self._outputs = self._runner.get_input_details(), self._runner.get_output_details()
        self._has_postprocess = set(self._outputs) == set(DETECTION_OUTPUTS)
        if set(inputs) != {INPUT} or not (self._has_postprocess or set(self._outputs) == set(RAW_OUTPUTS)):
            raise InputError(
                f"model {str(path)!r} maps {sorted(inputs)} to {sorted(self._outputs)}; a detector maps "
                f"['{INPUT}'] to {sorted(DETECTION_OUTPUTS)} or {sorted(RAW_OUTPUTS)}"
            )
        self._input = inputs[INPUT]
        self._anchors, self._suppression = anchors, suppression

    def __call__(self, image: np.ndarray) -> Detections:
        outputs = self._runner(**{INPUT: self._as_input(image)})
        if self._has_postprocess:
            boxes, classes, scores, count = (outputs[name] for name in DETECTION_OUTPUTS)
            # The op counts classes from 0 without the background.
            return _first([boxes, scores, classes.astype(int) + 1, count])
        raw_boxes, class_scores = (self._as_float(name, outputs[name]) for name in RAW_OUTPUTS)
        boxes = postprocess.decode(raw_boxes, self._anchors)
        kept = postprocess.suppress(boxes, class_scores, *dataclasses.astuple(self._suppression))
        return _first([output.numpy() for output in kept])

    def _as_input(self, image: np.ndarray) -> np.ndarray:
        dtype = self._input["dtype"]
        return image if dtype == np.float32 else images.quantize(image, dtype, *self._input["quantization"])

    def _as_float(self, name: str, values: np.ndarray) -> np.ndarray:
        if values.dtype == np.float32:
            return values
        scale, zero_point = self._outputs[name]["quantization"]
        return (values.astype(np.float32) - zero_point) * np.float32(scale)


def _first(batched: list[np.ndarray]) -> Detections:
    """Boxes, scores, classes and count of the first image, without the padding."""
    boxes, scores, classes, count = (values[0] for values in batched)
    kept = slice(int(count))
    return Detections(np.clip(boxes[kept], 0, 1), scores[kept], classes[kept])


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image with what each detector found, for a picture."""

    name: str
    pixels: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    found: dict[str, Detections]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics of several detectors on the same images.

    Attributes:
      metrics: for each detector the twelve COCO numbers.
      images: how many images were evaluated.
      shown: a few of them, for a picture.
    """

    metrics: dict[str, dict[str, float]]
    images: int
    shown: list[Shown]


def evaluate(
    detectors: Mapping[str, Detector], files: list[str], image_size: tuple[int, int],
    max_images: int | None = None, show: int = 0, progress=lambda iterable, total: iterable,
) -> Evaluation:  # fmt: skip
    """Runs detectors over the images of TFRecords and measures them with pycocotools.

    Args:
      detectors: by name.
      files: shards with the Object Detection API's features.
      image_size: (height, width) the networks take.
      max_images: only the first so many; None for all.
      show: how many images to keep for a picture.
      progress: wraps the records, given them and their number.

    Raises:
      InputError: no image, a damaged record, or an image that cannot be decoded.
      CheckFailed: a detector gives numbers that are not finite, or fewer images were seen
        than the ground truth holds; no metric is given then.
    """
    ground_truth = _limited(records.ground_truth(files), max_images)
    wanted = ground_truth["images"]
    if not wanted:
        raise InputError(f"evaluation data {files[0]!r} holds no image")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in detectors}
    seen, shown = set(), []
    examples = itertools.islice(records.read_examples(files), max_images)
    # The images of the ground truth are in the order of the records.
    for image, example in zip(wanted, progress(examples, len(wanted)), strict=False):
        pixels = images.decode(example.encoded, example.image_id)
        network_input = images.normalize(images.resize(pixels, image_size))[np.newaxis]
        found = {name: detect(network_input) for name, detect in detectors.items()}
        for name, detections in found.items():
            _check_finite(name, detections, example.image_id)
            results[name] += to_coco(detections, image)
        seen.add(image["id"])
        if len(shown) < show and len(example.boxes):
            shown.append(Shown(example.image_id, pixels, example.boxes, example.classes, found))
    if len(seen) != len(wanted):
        raise CheckFailed(f"{len(seen)} of {len(wanted)} images were evaluated; metrics need all of them")
    metrics = {name: coco_metrics(ground_truth, detections) for name, detections in results.items()}
    return Evaluation(metrics, len(seen), shown)


def _check_finite(name: str, detections: Detections, image_id: str) -> None:
    if not (np.isfinite(detections.boxes).all() and np.isfinite(detections.scores).all()):
        raise CheckFailed(f"the {name} detector gives numbers that are not finite on image {image_id}")


def _limited(ground_truth: dict[str, Any], max_images: int | None) -> dict[str, Any]:
    """The ground truth of the first images only."""
    if max_images is None:
        return ground_truth
    kept = ground_truth["images"][:max_images]
    ids = {image["id"] for image in kept}
    annotations = [a for a in ground_truth["annotations"] if a["image_id"] in ids]
    return ground_truth | {"images": kept, "annotations": annotations}


def to_coco(detections: Detections, image: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Detections as COCO results: boxes (x, y, width, height) in the image's own pixels.

    Args:
      detections: of one image.
      image: its COCO entry with `id`, `height`, `width`.
    """
    scale = np.array([image["height"], image["width"]] * 2, np.float64)
    boxes = detections.boxes.astype(np.float64) * scale
    found = zip(boxes.tolist(), detections.classes.tolist(), detections.scores.tolist(), strict=True)
    return [
        {
            "image_id": image["id"],
            "category_id": class_id,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for (y0, x0, y1, x1), class_id, score in found
    ]
