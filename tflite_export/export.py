"""From a checkpoint to a verified folder: detector.tflite, labels.txt, report.json, pictures."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mobiledets_tf import architecture as architectures
from mobiledets_tf import files
from mobiledets_tf.compat import keras
from mobiledets_tf.data import folders
from mobiledets_tf.detection import checkpoints
from mobiledets_tf.errors import CheckFailed
from mobiledets_tf.models import build_detector, postprocess
from tflite_export import convert, drawings, inspect, quantize, report
from tflite_export.devices import host_cpu
from tflite_export.evaluate import Detector, Evaluation, FileDetector, KerasDetector, evaluate
from tflite_export.source import Source

DETECTOR, LABELS, REPORT = "detector.tflite", "labels.txt", "report.json"
ARCHITECTURE, PICTURE = "architecture.json", "detections.png"
ARTEFACTS = (DETECTOR, LABELS, REPORT, ARCHITECTURE, PICTURE)
FRESH_WEIGHTS = "fresh weights, for timing only"
SHOWN_IMAGES = 6
# Fresh weights give no class a score above the threshold then. At the usual prior of 0.01 each
# anchor would be a candidate in each class, and the post-processing takes several times as
# long as the network: no trained detector is like that.
_FRESH_CLASS_BIAS = -30.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that an export depends on.

    Attributes:
      source: the network and its weights.
      options: what kind of file.
      calibration_files: TFRecord files; empty for noise.
      eval_files: TFRecord files; empty for no evaluation.
      calibration_images: how many images set the ranges.
      max_eval_images: only the first so many; None for all.
      max_ap_drop: the gate: how much lower than the float model's the file's AP may be.
      seed: of fresh weights and of the draw of calibration images.
    """

    source: Source
    options: convert.Options = convert.Options()
    calibration_files: tuple[str, ...] = ()
    eval_files: tuple[str, ...] = ()
    calibration_images: int = 100
    max_eval_images: int | None = None
    max_ap_drop: float | None = None
    seed: int = 0


# Wraps an iterable: (iterable, total, what, stream or None) -> iterable.
Progress = Callable[..., Iterable]


def _silent(iterable, total, what, stream=None):
    return iterable


def export(settings: Settings, output_dir: str | os.PathLike, progress: Progress = _silent) -> dict[str, Any]:
    """Exports, measures and writes a folder, whole or not at all.

    Args:
      settings: what to export and how.
      output_dir: the folder; the artefacts of an earlier export in it are replaced.
      progress: shows how far calibration and evaluation are.

    Returns:
      The report.

    Raises:
      InputError: the checkpoint or the data is not what it should be.
      CheckFailed: the AP drop is above `max_ap_drop` (the folder is written), or an
        evaluation was not complete (it is not).
    """
    source = settings.source
    detector = load_detector(source, settings.seed)
    anchors = postprocess.anchors(source.scaled(), source.image_size)
    calibration = _calibration(settings)
    model = convert.convert(
        detector, anchors, settings.options, calibration,
        lambda images, stream: progress(images, len(calibration.images), "calibrate", stream),
    )  # fmt: skip
    with folders.staging_folder(output_dir) as folder:
        (folder / DETECTOR).write_bytes(model)
        evaluation = _evaluate(settings, detector, anchors, folder / DETECTOR, progress)
        content = _report(settings, calibration, evaluation, folder / DETECTOR)
        _write(folder, source, evaluation, content)
        _move(folder, Path(output_dir))
    _gate(content, output_dir)
    return content


def load_detector(source: Source, seed: int = 0) -> keras.Model:
    """The float detector with the weights of its checkpoint, or fresh ones.

    Raises:
      InputError: the checkpoint is missing or of another network.
    """
    keras.utils.set_random_seed(seed)
    bias = {"class_bias": _FRESH_CLASS_BIAS} if source.checkpoint is None else {}
    detector = build_detector(source.scaled(), source.num_classes, source.image_size, **bias)
    if source.checkpoint is not None:
        checkpoints.restore(detector, source.checkpoint)
    return detector


def _calibration(settings: Settings) -> quantize.Calibration | None:
    if settings.options.quantization == "float":
        return None
    size, count = settings.source.image_size, settings.calibration_images
    if settings.calibration_files:
        return quantize.from_records(list(settings.calibration_files), size, count, settings.seed)
    return quantize.from_noise(size, count, settings.seed)


def _evaluate(
    settings: Settings, detector: keras.Model, anchors, path: Path, progress: Progress
) -> Evaluation | None:  # fmt: skip
    if not settings.eval_files:
        return None
    suppression = settings.options.suppression
    file_name = "int8" if settings.options.quantization == "int8" else "float_tflite"
    detectors: dict[str, Detector] = {
        "float": KerasDetector(detector, anchors, suppression),
        file_name: FileDetector(path, anchors, suppression),
    }
    return evaluate(
        detectors, list(settings.eval_files), settings.source.image_size, settings.max_eval_images,
        SHOWN_IMAGES, lambda images, total: progress(images, total, "evaluate"),
    )  # fmt: skip


def _report(
    settings: Settings, calibration: quantize.Calibration | None, evaluation: Evaluation | None, path: Path
) -> dict[str, Any]:
    model = inspect.read(path)
    metrics = evaluation.metrics if evaluation else {}
    content = {
        "schema_version": report.SCHEMA_VERSION,
        **report.network_section(settings.source),
        "weights": settings.source.checkpoint or FRESH_WEIGHTS,
        "options": report.options_section(settings.options),
        "calibration": calibration.summary() if calibration else None,
        "evaluation": _evaluation_section(settings, evaluation),
        "float": metrics.get("float"),
        "int8": metrics.get("int8"),
        "gate": _gate_section(metrics, settings.max_ap_drop),
        "file": {"name": DETECTOR} | model.summary(),
        "latency": host_cpu.measure(path).to_dict(),
        "readiness": report.readiness(model),
        "seed": settings.seed,
        "versions": report.versions(),
    }
    return content | ({"float_tflite": metrics["float_tflite"]} if "float_tflite" in metrics else {})


def _evaluation_section(settings: Settings, evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    names = [os.path.basename(file) for file in settings.eval_files]
    return {"images": evaluation.images, "files": names, "all_images": settings.max_eval_images is None}


def _gate_section(metrics: dict[str, dict[str, float]], max_ap_drop: float | None) -> dict[str, Any] | None:
    """How much the file's AP is below the float model's, and whether that is allowed."""
    if not metrics:
        return None
    before, after = (values["AP"] for values in metrics.values())
    drop = before - after
    return {"ap_drop": drop, "max_ap_drop": max_ap_drop, "passed": max_ap_drop is None or drop <= max_ap_drop}


def _gate(content: dict[str, Any], output_dir: str | os.PathLike) -> None:
    gate = content["gate"]
    if gate and not gate["passed"]:
        raise CheckFailed(
            f"AP drops by {gate['ap_drop']:.4f} from the float model to {DETECTOR}; allowed by "
            f"--max_ap_drop: {gate['max_ap_drop']:g}; see {Path(output_dir) / REPORT}"
        )


def _write(folder: Path, source: Source, evaluation: Evaluation | None, content: dict[str, Any]) -> None:
    architectures.save(source.architecture, folder / ARCHITECTURE)
    files.write_text(folder / LABELS, "".join(f"{label}\n" for label in source.labels))
    if evaluation and evaluation.shown:
        (folder / PICTURE).write_bytes(drawings.detections_png(evaluation.shown, list(source.labels)))
    files.write_artefact(folder / REPORT, content)


def _move(folder: Path, target: Path) -> None:
    if target.is_dir() and any(target.iterdir()):
        folders.replace_files(folder, target, list(ARTEFACTS))
    else:
        os.rename(folder, target)
