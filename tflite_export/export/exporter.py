"""Exports a checkpoint to a verified folder: detector.tflite, labels.txt, report.json, report.html."""

import dataclasses
import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf import files
from mobiledets_tf.compat import keras
from mobiledets_tf.data import folders, records
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.models import postprocess
from mobiledets_tf.version import __version__
from mobiledets_tf.weights import trained_network
from mobiledets_tf.weights.trained_network import Source
from tflite_export.detector.keras_detector import KerasDetector
from tflite_export.export import (
    bundle,
    convert,
    drawings,
    export_report,
    quantization_error,
    quantize,
    report_page,
)
from tflite_export.export.evaluate import Detector, Evaluation, FileDetector, evaluate
from tflite_export.export.quantization_error import QuantizationError
from tflite_export.tflite import labels, metadata, model_file, suppression
from tflite_export.tflite.layout import INPUT
from tflite_export.tflite.suppression import Suppression

DETECTOR, LABELS, LABELS_INDEXED, REPORT = "detector.tflite", labels.PLAIN, labels.INDEXED, "report.json"
ARCHITECTURE, PICTURE, PAGE = "architecture.json", "detections.png", "report.html"
RESULTS = "detections.json"
ARTEFACTS = (DETECTOR, LABELS, LABELS_INDEXED, REPORT, ARCHITECTURE, PICTURE, PAGE, RESULTS, bundle.FOLDER)
FRESH_WEIGHTS = "fresh weights, for timing only"
SHOWN_IMAGES = 6
# Images on which every tensor of the int8 file is compared with the float file's.
COMPARED_IMAGES = 4
# Thread counts to evaluate a file with regular suppression, which loses a class on several threads.
_THREADS = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that an export depends on.

    Attributes:
      source: the network and its weights.
      options: the kind of file to write.
      calibration_files: TFRecord files; empty to calibrate with noise.
      eval_files: TFRecord files; empty to skip evaluation.
      calibration_images: number of images that set the activation ranges.
      max_eval_images: evaluate only this many images, from the beginning; None for all.
      max_ap_drop: quality gate: maximum drop of AP from the float model to the file.
      max_output_error: quality gate: maximum relative error of the int8 file's raw outputs.
      seed: seed of fresh weights and of the sample of calibration images.
      bundle: also write a deployment folder.
    """

    source: Source
    options: convert.Options = convert.Options()
    calibration_files: tuple[str, ...] = ()
    eval_files: tuple[str, ...] = ()
    calibration_images: int = 100
    max_eval_images: int | None = None
    max_ap_drop: float | None = None
    max_output_error: float | None = None
    seed: int = 0
    bundle: bool = False

    @property
    def is_int8(self) -> bool:
        """Whether the file is int8, quantised during or after training."""
        return self.options.quantization != "float"

    @property
    def file_kind(self) -> str:
        """Name of the exported file in the report."""
        return "int8" if self.is_int8 else "float_tflite"


# Wraps an iterable and returns one: (iterable, total, description, stream or None) -> iterable.
Progress = Callable[..., Iterable]


def _silent(iterable: Iterable, total: int, what: str, stream: TextIO | None = None) -> Iterable:
    return iterable


def export(settings: Settings, output_dir: str | os.PathLike, progress: Progress = _silent) -> dict[str, Any]:
    """Exports and measures a detector and writes the folder, either completely or not at all.

    Args:
      settings: what to export and how.
      output_dir: the folder to write; artefacts of an earlier export in it are replaced.
      progress: shows the progress of calibration and evaluation.

    Returns:
      The report.

    Raises:
      InputError: the checkpoint or the data is missing or invalid.
      CheckFailed: a quality gate failed (the folder is still written), or an evaluation was incomplete
        (the folder is not written).
    """
    source = settings.source
    anchors = postprocess.anchors(source.scaled(), source.image_size)
    calibration = _calibration(settings)
    wrap = _calibration_progress(calibration, progress)
    detector, network, ranges = _load(settings, calibration, wrap)
    with folders.staging_folder(output_dir) as folder, _float_folder(folder) as beside:
        made = {"float_tflite": Path(beside) / DETECTOR} if settings.is_int8 else {}
        for path in made.values():
            path.write_bytes(convert.convert(detector, anchors, settings.options.as_float()))
        made |= {settings.file_kind: folder / DETECTOR}
        made[settings.file_kind].write_bytes(
            _with_metadata(convert.convert(network, anchors, settings.options, calibration, wrap), settings)
        )
        evaluation = _evaluate(settings, detector, anchors, made, progress)
        error = _quantization_error(made, calibration)
        content = _report(settings, calibration, evaluation, error, folder / DETECTOR) | {"ranges": ranges}
        _write(folder, source, evaluation, content)
        if evaluation:
            _write_results(folder, evaluation.results[settings.file_kind], settings)
        if settings.bundle:
            shipped = settings.options.suppression
            bundle.write(folder / bundle.FOLDER, folder / DETECTOR, source.labels, shipped)
        _move(folder, Path(output_dir))
    _gate(content, error, output_dir)
    return content


def _with_metadata(model: bytes, settings: Settings) -> bytes:
    source, threshold = settings.source, settings.options.suppression.score_threshold
    return metadata.add(model, source.labels, source.architecture.name, threshold, __version__)


def _load(
    settings: Settings, calibration: quantize.Calibration | None, wrap: Callable
) -> tuple[keras.Model, keras.Model, str | None]:
    """Returns the float detector, the network to convert, and the source of int8 activation ranges."""
    if settings.options.quantization != "qat":
        detector = trained_network.load_detector(settings.source, settings.seed)
        return detector, detector, "calibration" if settings.is_int8 else None
    from tflite_export.export import quantization_aware

    fresh = dataclasses.replace(settings.source, checkpoint=None)
    detector = trained_network.load_detector(fresh, settings.seed)
    if settings.source.checkpoint is None:
        raise InputError("int8 with the ranges of a training needs its checkpoint")
    quantized, has_ranges = quantization_aware.load(detector, settings.source.checkpoint)
    if has_ranges:
        return detector, quantized.network, "training"
    images = cast(quantize.Calibration, calibration)
    quantization_aware.observe_ranges(quantized, images, lambda items: wrap(items, None))
    return detector, quantized.network, "calibration"


def _calibration_progress(calibration: quantize.Calibration | None, progress: Progress) -> Callable:
    total = len(calibration.images) if calibration else 0
    return lambda images, stream: progress(images, total, "calibrate", stream)


def _float_folder(beside: Path) -> tempfile.TemporaryDirectory:
    """Creates a folder for the float file that the int8 file is compared with; it is not shipped."""
    return tempfile.TemporaryDirectory(prefix=".float-", dir=beside.parent)


def _calibration(settings: Settings) -> quantize.Calibration | None:
    if not settings.is_int8:
        return None
    size, count = settings.source.image_size, settings.calibration_images
    if settings.calibration_files:
        return quantize.from_records(list(settings.calibration_files), size, count, settings.seed)
    return quantize.from_noise(size, count, settings.seed)


def _evaluate(
    settings: Settings, detector: keras.Model, anchors: np.ndarray, made: dict[str, Path], progress: Progress
) -> Evaluation | None:
    if not settings.eval_files:
        return None
    measured = settings.options.suppression.for_evaluation()
    detectors: dict[str, Detector] = {"float": KerasDetector(detector, anchors, measured)}
    detectors |= {name: _measured(path, anchors, measured) for name, path in made.items()}
    main = tuple(detectors)
    if settings.options.postprocess == "tflite":
        detectors |= _variants(made[settings.file_kind], anchors, measured)
    return evaluate(
        detectors,
        list(settings.eval_files),
        settings.source.image_size,
        settings.max_eval_images,
        SHOWN_IMAGES,
        lambda images, total: progress(images, total, "evaluate"),
        main,
    )


def _measured(path: Path, anchors: np.ndarray, settings: Suppression, threads: int = 1) -> FileDetector:
    """Returns a file's detector with different post-processing settings."""
    return FileDetector(suppression.changed(path.read_bytes(), settings), anchors, settings, threads)


def _variants(path: Path, anchors: np.ndarray, measured: Suppression) -> dict[str, Detector]:
    """Returns the file as shipped, and with `fast` and `regular` suppression, the latter by thread count."""
    regular = dataclasses.replace(measured, nms="regular")
    return {
        "as_shipped": FileDetector(path, anchors, measured),
        "fast": _measured(path, anchors, dataclasses.replace(measured, nms="fast")),
        **{f"regular {count}": _measured(path, anchors, regular, count) for count in _THREADS},
    }


def _nms_section(settings: Settings, metrics: dict[str, dict[str, float]]) -> dict[str, Any] | None:
    """Returns the AP as shipped, with each suppression, and with `regular` on several threads."""
    if "as_shipped" not in metrics:
        return None

    def short(name: str) -> dict[str, float]:
        return {key: metrics[name][key] for key in ("AP", "AP50")}

    return {
        "shipped": settings.options.suppression.nms,
        "as_shipped": short("as_shipped"),
        "fast": short("fast"),
        "regular": short("regular 1"),
        "regular_on_threads": {str(count): short(f"regular {count}") for count in _THREADS},
        "note": suppression.THREADS_NOTE,
    }


def _quantization_error(
    made: dict[str, Path], calibration: quantize.Calibration | None
) -> QuantizationError | None:
    if calibration is None:
        return None
    samples = itertools.islice(calibration.samples(), COMPARED_IMAGES)
    float_file, int8_file = made.values()
    return quantization_error.compare(float_file, int8_file, [sample[INPUT] for sample in samples])


def _report(
    settings: Settings,
    calibration: quantize.Calibration | None,
    evaluation: Evaluation | None,
    error: QuantizationError | None,
    path: Path,
) -> dict[str, Any]:
    model = model_file.read(path)
    metrics = evaluation.metrics if evaluation else {}
    return {
        "schema_version": report_page.SCHEMA_VERSION,
        **export_report.network_section(settings.source),
        "weights": settings.source.checkpoint or FRESH_WEIGHTS,
        "options": export_report.options_section(settings.options),
        "calibration": _calibration_section(settings, calibration),
        "evaluation": _evaluation_section(settings, evaluation),
        **{name: metrics.get(name) for name in ("float", "float_tflite", "int8")},
        "nms": _nms_section(settings, metrics),
        "quantization_error": error.to_dict() if error else None,
        "gate": _gate_section(settings, metrics, error),
        "file": {"name": DETECTOR} | model.summary(),
        "latency": export_report.latency(model, path),
        "readiness": export_report.readiness(model, path),
        "seed": settings.seed,
        "versions": export_report.versions(),
    }


def _calibration_section(
    settings: Settings, calibration: quantize.Calibration | None
) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return calibration.summary() | {"split": _split(settings.calibration_files)}


def _evaluation_section(settings: Settings, evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    names = [os.path.basename(file) for file in settings.eval_files]
    return {
        "images": evaluation.images,
        "split": _split(settings.eval_files),
        "files": names,
        "all_images": settings.max_eval_images is None,
        **{
            key: getattr(settings.options.suppression.for_evaluation(), key)
            for key in ("score_threshold", "max_detections", "nms")
        },
    }


def _split(shards: tuple[str, ...]) -> str | None:
    """Returns the prefix that all shards share: `val` for val-00000-of-00004.tfrecord."""
    names = {re.sub(r"-\d+-of-\d+.*$", "", os.path.basename(file)) for file in shards}
    return ", ".join(sorted(names)) or None


def _gate_section(
    settings: Settings, metrics: dict[str, dict[str, float]], error: QuantizationError | None
) -> dict[str, Any] | None:
    """Returns the file's drop of AP from the float model, the error of its outputs, and the limits."""
    if not metrics and error is None:
        return None
    drop = metrics["float"]["AP"] - metrics[settings.file_kind]["AP"] if metrics else None
    output_error = max(error.outputs.values()) if error else None
    limits = ((drop, settings.max_ap_drop), (output_error, settings.max_output_error))
    return {
        "ap_drop": drop,
        "max_ap_drop": settings.max_ap_drop,
        "output_error": output_error,
        "max_output_error": settings.max_output_error,
        "passed": all(value is None or limit is None or value <= limit for value, limit in limits),
    }


def _gate(content: dict[str, Any], error: QuantizationError | None, output_dir: str | os.PathLike) -> None:
    gate = content["gate"]
    if not gate or gate["passed"]:
        return
    reasons = []
    if gate["max_ap_drop"] is not None and gate["ap_drop"] > gate["max_ap_drop"]:
        reasons.append(
            f"AP drops by {gate['ap_drop']:.4f} from the float model to {DETECTOR} on split "
            f"{content['evaluation']['split']}; allowed by --max_ap_drop: {gate['max_ap_drop']:g}"
        )
    if gate["max_output_error"] is not None and gate["output_error"] > gate["max_output_error"]:
        reasons.append(
            f"the relative error of the raw outputs is {gate['output_error']:.4f}; allowed by "
            f"--max_output_error: {gate['max_output_error']:g}"
        )
    if error:
        reasons.append(f"the layers that add most error are {quantization_error.worst_layers(error)}")
    raise CheckFailed(f"{'; '.join(reasons)}; see {Path(output_dir) / REPORT}")


def _write(folder: Path, source: Source, evaluation: Evaluation | None, content: dict[str, Any]) -> None:
    architectures.save(source.architecture, folder / ARCHITECTURE)
    files.write_text(folder / LABELS, labels.plain(source.labels))
    files.write_text(folder / LABELS_INDEXED, labels.indexed(source.labels))
    if evaluation and evaluation.shown:
        (folder / PICTURE).write_bytes(drawings.detections_png(evaluation.shown, list(source.labels)))
    files.write_artefact(folder / REPORT, content)
    page = report_page.render(content, model_file.read(folder / DETECTOR), folder / PICTURE)
    files.write_text(folder / PAGE, page)


def _write_results(folder: Path, results: list[dict[str, Any]], settings: Settings) -> None:
    """Writes the detections that the file's AP was measured on, with the data's original category ids."""
    names = dict(enumerate(settings.source.labels, 1))
    ids = records.coco_category_ids(settings.eval_files, names)
    own = [found | {"category_id": ids.get(found["category_id"], found["category_id"])} for found in results]
    files.write_text(folder / RESULTS, json.dumps(own, allow_nan=False) + "\n")


def _move(folder: Path, target: Path) -> None:
    if target.is_dir() and any(target.iterdir()):
        folders.replace_files(folder, target, list(ARTEFACTS))
    else:
        os.rename(folder, target)
