"""COCO evaluation of checkpoints with the Object Detection API's input, losses and post-processing."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobiledets_tf import compat, files
from mobiledets_tf.compat import tf
from mobiledets_tf.data import records
from mobiledets_tf.data.coco_metrics import coco_results, coco_scores, pixel_boxes
from mobiledets_tf.data.confusion import confusion
from mobiledets_tf.detection import curve, meta_architecture, model_dir, pipeline_config
from mobiledets_tf.detection.drawing import draw_boxes
from mobiledets_tf.detection.ordered_input import Records, file_order
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.weights import checkpoints

compat.enable_object_detection()

from object_detection import inputs, model_lib, model_lib_v2  # noqa: E402
from object_detection.core import standard_fields as fields  # noqa: E402

METRICS_FILE = "eval_metrics.json"
RESULTS_FILE = "eval_detections.json"
CURVE_FILE = "training_curve.png"
# Number of images written to TensorBoard, and the lowest score of a box that is drawn on them.
_SHOWN_IMAGES, _SHOWN_SCORE = 8, 0.3
_LOSSES = {
    "Loss/total_loss": "loss",
    "Loss/classification_loss": "classification_loss",
    "Loss/localization_loss": "localization_loss",
    "Loss/regularization_loss": "regularization_loss",
}


@dataclass(frozen=True)
class Evaluation:
    """Result of evaluating one checkpoint on one data set.

    Attributes:
      metrics: `step`, the twelve COCO metrics and the mean losses.
      per_class: maps each class name to its `AP` and `AP50`.
      confusion: confusion matrix as returned by `data.confusion.confusion`.
      classes: class names in the order of the confusion matrix.
      results: every detection as a COCO result, with the ids of the data's own annotation file.
    """

    metrics: dict[str, float | int]
    per_class: dict[str, dict[str, float]]
    confusion: np.ndarray
    classes: tuple[str, ...]
    results: list[dict[str, Any]] = field(default_factory=list)

    def table(self) -> list[str]:
        """Formats a table with the AP of each class and the class it was most often confused with."""
        width = max(map(len, self.classes))
        lines = [f"{'class':<{width}}     AP   AP50  boxes  found  missed  most often confused with"]
        for row, name in enumerate(self.classes):
            counts, scores = self.confusion[row], self.per_class[name]
            others = [(count, c) for c, count in enumerate(counts[:-1]) if c != row and count]
            other = f"{self.classes[max(others)[1]]} ({max(others)[0]})" if others else "-"
            shown = "      -      -" if scores["AP"] < 0 else f"  {scores['AP']:.3f}  {scores['AP50']:.3f}"
            lines.append(
                f"{name:<{width}}{shown}  {counts.sum():>5}  {counts[row]:>5}  {counts[-1]:>6}  {other}"
            )
        return [
            *lines,
            f"detections that match no box: {self.confusion[-1].sum()} (score from 0.3, IoU from 0.5)",
        ]


class Evaluator:
    """Evaluates checkpoints on one data set, with one model that is traced once.

    Args:
      config: the pipeline config; only its first eval input is read.
      folder: the model folder; TensorBoard summaries are written to its `eval/`.
      stop: called after each batch; raises an exception to end the evaluation.

    Raises:
      InputError: the data contains no images.
    """

    def __init__(
        self,
        config: pipeline_config.PipelineConfig,
        folder: str | os.PathLike,
        stop: Callable[[], None] = lambda: None,
    ):
        reader = config.eval_input_reader[0]
        self._stop = stop
        with compat.quiet():
            self._build(config, reader)
        self._step = tf.function(self._one_batch)
        self._writer = tf.summary.create_file_writer(str(Path(folder) / "eval"))

    def _build(self, config: pipeline_config.PipelineConfig, reader: Any) -> None:
        self._quantized = pipeline_config.is_quantization_aware(config)
        self._model = meta_architecture.build_detection_model(
            config.model, is_training=False, quantization_aware=self._quantized
        )
        paths = [
            path
            for pattern in reader.tf_record_input_reader.input_path
            for path in records.resolve(pattern, "val")
        ]
        self._records = Records(paths)
        names = records.read_label_map(reader.label_map_path)
        self._names = names
        self._truth, self._image_ids = _ground_truth(self._records, names)
        self._category_ids = records.coco_category_ids(paths, names)
        with file_order(self._records):
            read = inputs.eval_input(config.eval_config, reader, config.model, self._model)
        self._dataset = compat.without_autotune(read)

    def evaluate(self, checkpoint: str) -> Evaluation:
        """Evaluates a checkpoint and writes TensorBoard summaries.

        Raises:
          InputError: the checkpoint is damaged or belongs to another network.
          CheckFailed: an image cannot be decoded, not every image was evaluated, or a metric is not finite.
        """
        with compat.quiet():
            return self._evaluate(checkpoint)

    def _evaluate(self, checkpoint: str) -> Evaluation:
        checkpoints.restore(self._model.network, checkpoint, self._model.named_weights)
        if self._quantized:
            checkpoints.restore_ranges(self._model.ranges, checkpoint)
        step = checkpoints.step(checkpoint)
        losses, detections, pictures = self._run(f"evaluate step {step}")
        scores = coco_scores(self._truth, detections)
        metrics = {"step": step} | scores.metrics | losses
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise CheckFailed(f"{name} is {value} at step {step}")
        self._summarise(metrics, scores.per_class, pictures)
        classes = tuple(category["name"] for category in self._truth["categories"])
        matrix = confusion(self._truth, detections)
        return Evaluation(metrics, scores.per_class, matrix, classes, self._results(detections))

    def _results(self, detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            found
            | {
                "image_id": self._image_ids[found["image_id"] - 1],
                "category_id": self._category_ids[found["category_id"]],
            }
            for found in detections
        ]

    def _one_batch(
        self, features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        labels = model_lib.unstack_batch(labels, unpad_groundtruth_tensors=False)
        losses, predictions = model_lib_v2._compute_losses_and_predictions_dicts(
            self._model, features, labels, training_step=0
        )
        shapes = features[fields.InputDataFields.true_image_shape]
        found = self._model.postprocess(predictions, shapes)
        keys = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
        return losses, {key: found[key] for key in keys}

    def _run(self, title: str) -> tuple[dict[str, float], list[dict[str, Any]], list[np.ndarray]]:
        """Runs the model on all images; returns (mean losses by name, COCO detections, drawn images)."""
        sums: dict[str, float] = dict.fromkeys(_LOSSES.values(), 0.0)
        detections: list[dict[str, Any]] = []
        pictures: list[np.ndarray] = []
        done = 0
        bar = tqdm(total=len(self._records), desc=title, unit="image", leave=False)
        with bar, _named_pictures(self._records):
            for features, labels in self._dataset:
                losses, found = self._step(features, labels)
                found = {key: value.numpy() for key, value in found.items()}
                images = features[fields.InputDataFields.image]
                for row in range(len(images)):
                    detections += _coco_detections(found, row, self._truth["images"][done + row])
                    if len(pictures) < _SHOWN_IMAGES:
                        pictures.append(self._picture(images[row].numpy(), found, row, done + row + 1))
                for key, name in _LOSSES.items():
                    sums[name] += float(losses.get(key, 0.0)) * len(images)
                done += len(images)
                bar.update(len(images))
                self._stop()
        check_complete(done, len(self._records))
        # The head also has outputs for ids that no class uses; their detections are dropped.
        known = [found for found in detections if found["category_id"] in self._names]
        return {name: value / done for name, value in sums.items()}, known, pictures

    def _picture(
        self, image: np.ndarray, found: dict[str, np.ndarray], row: int, image_id: int
    ) -> np.ndarray:
        entry = self._truth["images"][image_id - 1]
        size = np.array([entry["width"], entry["height"]] * 2, np.float64)
        truth = []
        for box in self._truth["annotations"]:
            if box["image_id"] == image_id:
                left, top, width, height = np.array(box["bbox"]) / size
                truth.append((top, left, top + height, left + width))
        shown = found["detection_scores"][row] >= _SHOWN_SCORE
        return draw_boxes(image, truth, found["detection_boxes"][row][shown])

    def _summarise(
        self, metrics: dict[str, float], per_class: dict[str, dict[str, float]], pictures: list[np.ndarray]
    ) -> None:
        with self._writer.as_default(step=metrics["step"]):
            for name, value in metrics.items():
                if name != "step":
                    tf.summary.scalar(name if "loss" not in name else f"Loss/{name}", value)
            for name, values in per_class.items():
                tf.summary.scalar(f"AP/{name}", values["AP"])
            tf.summary.image("detections", np.stack(pictures), max_outputs=_SHOWN_IMAGES)
        self._writer.flush()


@contextlib.contextmanager
def _named_pictures(examples: Records) -> Iterator[None]:
    """Raises CheckFailed that names the image if decoding fails, because TensorFlow's error does not."""
    try:
        yield
    except tf.errors.OpError:
        records.require_decodable(examples.files)
        raise


def check_complete(done: int, images: int) -> None:
    """Raises CheckFailed unless every image was evaluated: AP on a subset would be misleading."""
    if done != images:
        raise CheckFailed(f"only {done} of {images} images were evaluated, so no AP is reported")


def _ground_truth(examples: Records, names: dict[int, str]) -> tuple[dict[str, Any], list[int]]:
    """Returns a COCO dictionary that numbers the images from 1 in file order, and the images' own ids.

    If any image's own id is not a number or occurs twice, the numbers are returned as ids instead.
    """
    images, own = [], []
    annotations: list[dict[str, Any]] = []
    for number in range(len(examples)):
        example = records.parse_example(examples.read(number), f"evaluation record {number + 1}")
        images.append({"id": number + 1, "width": example.width, "height": example.height})
        annotations += records.coco_boxes(example, number + 1, len(annotations))
        own.append(example.image_id)
    are_ids = all(text.isascii() and text.isdigit() for text in own) and len(set(own)) == len(own)
    ids = [int(text) if are_ids else number for number, text in enumerate(own, 1)]
    categories = [{"id": class_id, "name": name} for class_id, name in names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}, ids


def _coco_detections(found: dict[str, np.ndarray], row: int, image: dict[str, int]) -> list[dict[str, Any]]:
    count = int(found["num_detections"][row])
    parts = (found[f"detection_{name}"][row, :count] for name in ("boxes", "classes", "scores"))
    boxes, classes, scores = parts
    # The API numbers classes from 0.
    ids = classes.astype(int) + 1
    return coco_results(image["id"], pixel_boxes(boxes, image["height"], image["width"]), ids, scores)


def read_metrics(folder: str | os.PathLike) -> list[dict[str, float | int]]:
    """Reads a folder's `eval_metrics.json`, one entry per evaluated step; empty if there is no file."""
    path = Path(folder) / METRICS_FILE
    rows = files.read_json(path, "metrics file") if path.exists() else []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "step" in row for row in rows):
        raise InputError(f"metrics file {str(path)!r} should be a list of objects with a step")
    return rows


def write_metrics(folder: str | os.PathLike, rows: list[dict[str, float | int]]) -> None:
    """Writes `eval_metrics.json`, sorted by step, and the training curve."""
    rows = sorted(rows, key=lambda row: row["step"])
    files.write_json(Path(folder) / METRICS_FILE, rows)
    curve.draw(rows, Path(folder) / CURVE_FILE)


def evaluate_kept(
    folder: str | os.PathLike, config: pipeline_config.PipelineConfig | None = None
) -> list[Evaluation]:
    """Evaluates every trained checkpoint in a model folder.

    Writes the metrics to `eval_metrics.json`, the detections of the last checkpoint as COCO results to
    `eval_detections.json`, and the training curve.

    Args:
      folder: the model folder.
      config: pipeline config; default: the folder's own. Another config may name other evaluation data.

    Returns:
      The evaluations in order of step; only the last one has `results`.

    Raises:
      InputError: there is no trained checkpoint, or one belongs to another network.
    """
    found = [path for path in checkpoints.kept(folder) if checkpoints.step(path)]
    if not found:
        raise InputError(f"model_dir {str(folder)!r} contains no trained checkpoint")
    evaluator = Evaluator(config or model_dir.load(folder), folder)
    # Keeping the detections of all checkpoints would need too much memory.
    evaluations = [replace(evaluator.evaluate(checkpoint), results=[]) for checkpoint in found[:-1]]
    evaluations.append(evaluator.evaluate(found[-1]))
    write_metrics(folder, [evaluation.metrics for evaluation in evaluations])
    results = json.dumps(evaluations[-1].results, allow_nan=False)
    files.write_text(Path(folder) / RESULTS_FILE, results + "\n")
    return evaluations
