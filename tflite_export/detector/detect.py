"""Runs a detector on images, a video or a camera; writes annotated copies, COCO results and AP.

Measuring AP requires annotations. An interrupted run over a folder resumes with the next call: its
results are kept in a journal until the run is complete.
"""

import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf import files
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.interrupts import StopRequest
from tflite_export.detector import footage
from tflite_export.detector.coco_results import Truth, to_coco
from tflite_export.detector.detector import Detector
from tflite_export.detector.file_detector import Detections
from tflite_export.detector.footage import Folder, Frame, Video
from tflite_export.detector.options import DetectOptions
from tflite_export.tflite.suppression import Suppression

RESULTS, IMAGES, METRICS, ANNOTATED = "detections.json", "images.json", "metrics.json", "annotated"
JOURNAL = ".detections.jsonl"
# Schema version of metrics.json.
METRICS_VERSION = 1

# Wraps the images; called with the iterable and their number, or None if the number is unknown.
Progress = Callable[[Iterable, "int | None"], Iterable]


@dataclasses.dataclass(frozen=True)
class Summary:
    """Summary of a run.

    Attributes:
      images: number of images processed, including those of an earlier, interrupted run.
      detections: number of detections in `detections.json`.
      images_per_s: throughput of reading, resizing and detecting, without drawing. None if an earlier
        run had already processed all images.
      metrics: the twelve COCO metrics, or None without annotations.
      skipped: number of images in the folder that are not in the annotations.
      unread: names of images that could not be read, each with the reason.
      fault: the error that ended a video or a camera stream early, or ''.
      interrupted: whether images are left to process.
    """

    images: int
    detections: int
    images_per_s: float | None
    metrics: dict[str, float] | None
    skipped: int
    unread: dict[str, str]
    fault: str
    interrupted: bool


def run(options: DetectOptions, progress: Progress = lambda items, total: items) -> Summary:
    """Runs a detector on images, a video or a camera and writes the results; stops at Ctrl-C.

    Args:
      options: the detector, the images and the settings.
      progress: shows the progress.

    Raises:
      InputError: the model, the images or the annotations cannot be read, or do not fit together.
      CheckFailed: the Edge TPU compiler rejects the file.
    """
    files.check_output_dir(options.output_dir)
    truth = None if options.annotations is None else Truth.load(options.annotations)
    if truth and truth.faults:
        _say(
            f"{truth.faults} faulty entries of the annotations are left out; "
            "mobiledets-data --mode=check lists them"
        )
    source = footage.open_source(options.images)
    detector = _detector(options)
    if not detector.labels:
        _say("the model has no labels, so classes are shown as numbers; set --labels to name them")
    drawn = options.score_threshold if options.draw else None
    work = Run(detector, source, options.output_dir, truth, drawn, _settings(options))
    with StopRequest() as stop:
        return work.run(options.max_images, progress, lambda: stop.requested)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _detector(options: DetectOptions) -> Detector:
    """Loads the detector, which keeps low scores if AP is measured."""
    measured, scored = Suppression(), options.annotations is not None
    threshold = measured.score_threshold if scored else options.score_threshold
    count = measured.max_detections if scored else None
    return Detector(options.model, options.labels, options.device, options.threads, threshold, count)


def _settings(options: DetectOptions) -> dict[str, Any]:
    """Returns all settings that the results depend on; a run resumes only if they are the same."""
    names = ("score_threshold", "device", "draw", "annotations", "labels", "threads")
    return {name: getattr(options, name) for name in names} | {
        "model": fingerprint(options.model),
        "images": os.path.abspath(options.images),
    }


class Run:
    """One detector applied to one source of images.

    Args:
      detector: the detector to run. It must keep detections with low scores if AP is measured.
      source: a source of `footage.open_source`.
      output_dir: folder for the results.
      truth: annotations of the images, or None.
      draw_threshold: minimum score of the boxes to draw; None draws nothing.
      settings: everything that the results depend on; an interrupted run resumes only if they are equal.

    Raises:
      InputError: annotated images are missing, or the annotations' categories are not the model's classes.
    """

    def __init__(
        self,
        detector: Detector,
        source: Folder | Video,
        output_dir: str | os.PathLike,
        truth: Truth | None,
        draw_threshold: float | None,
        settings: dict[str, Any],
    ):
        self._detector, self._source, self._truth = detector, source, truth
        self._folder, self._draw = Path(output_dir), draw_threshold
        self._settings = settings
        if truth is not None and isinstance(source, Video):
            raise InputError("--annotations requires images, but --images is a video or a camera")
        self._known = truth.images() if truth else {}
        self._ids = truth.category_ids(detector.labels, detector.num_classes) if truth else None
        if isinstance(source, Folder) and not source.is_single:
            if self._folder.resolve().is_relative_to(Path(source.folder).resolve()):
                raise InputError(
                    f"--output_dir={output_dir} is inside the folder of the images, so a second run would "
                    "also detect in the annotated copies; use another folder"
                )

    def run(
        self,
        max_images: int | None = None,
        progress: Callable[..., Iterable] = lambda items, total: items,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Summary:
        """Detects in all images and writes the results; see `Summary`.

        An image of a folder that cannot be read is left out and listed in the summary and in the results.
        If AP is measured, all its boxes count as missed.

        Args:
          max_images: process only this many images, from the beginning.
          progress: wraps the images; called with the iterable and their number, or None if unknown.
          stopped: returns whether to stop before the next image.

        Raises:
          InputError: no image can be read.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        source = self._source
        if isinstance(source, Video):
            return self._run_video(source, max_images, progress, stopped)
        names, skipped = self._names(source, max_images)
        unread: dict[str, str] = {}
        journal = _Journal(self._folder / JOURNAL, self._settings)
        left = [name for name in names if name not in journal.rows]
        entries, seconds, count = dict(journal.rows), 0.0, 0
        for name in progress(left, len(left)):
            if stopped():
                return Summary(len(entries), 0, _rate(count, seconds), None, skipped, unread, "", True)
            start = time.perf_counter()
            known = self._known.get(name)
            try:
                frame = source.read(name, (known.width, known.height) if known else None)
            except InputError as error:
                unread[name] = str(error)
                continue
            found = self._detector(frame.pixels)
            seconds, count = seconds + time.perf_counter() - start, count + 1
            self._picture(frame, found)
            entries[name] = self._entry(frame, found, known.id if known else None)
            journal.add(name, entries[name])
        if not entries:
            journal.remove()
            more = f"; {len(unread) - 1} other images cannot be read either" if len(unread) > 1 else ""
            raise InputError(f"{next(iter(unread.values()))}{more}")
        results = self._write([(name, entries[name]) for name in names if name in entries], unread)
        metrics = self._score(results, unread)
        journal.remove()
        return Summary(len(entries), len(results), _rate(count, seconds), metrics, skipped, unread, "", False)

    def _names(self, source: Folder, max_images: int | None) -> tuple[list[str], int]:
        """Returns the names of the images to process, and how many images have no annotation."""
        names = source.names
        if self._truth is None:
            return names[:max_images], 0
        missing = [name for name in self._known if name not in set(names)]
        if missing:
            raise InputError(
                f"{len(missing)} annotated images are not in {str(source.folder)!r}, for "
                f"example {missing[0]!r}; measuring AP requires all of them"
            )
        if max_images is not None:
            raise InputError(
                "--max_images cannot be combined with --annotations: measuring AP requires all images"
            )
        return [name for name in names if name in self._known], len(names) - len(self._known)

    def _run_video(
        self, source: Video, max_images: int | None, progress: Progress, stopped: Callable[[], bool]
    ) -> Summary:
        seconds, fault = 0.0, ""
        entries: list[tuple[str, dict[str, Any]]] = []
        total = source.count if max_images is None else min(max_images, source.count or max_images)
        path = self._folder / f"{ANNOTATED}.mp4"
        with files.atomic_path(path) as temporary:
            writer = footage.VideoWriter(temporary, source.frames_per_s)
            try:
                start = time.perf_counter()
                for frame in progress(_frames(source, max_images), total):
                    found = self._detector(frame.pixels)
                    seconds += time.perf_counter() - start
                    if self._draw is not None:
                        writer.write(self._drawn(frame, found))
                    entries.append((frame.name, self._entry(frame, found, len(entries) + 1)))
                    if stopped():
                        break
                    start = time.perf_counter()
            except CheckFailed as error:
                fault = str(error)
            finally:
                writer.close()
                source.close()
        if self._draw is None or not entries:
            path.unlink(missing_ok=True)
        results = self._write(entries, {})
        ended = fault == "" and stopped() and not source.is_camera
        return Summary(len(entries), len(results), _rate(len(entries), seconds), None, 0, {}, fault, ended)

    def _entry(self, frame: Frame, found: Detections, image_id: int | None) -> dict[str, Any]:
        height, width = frame.pixels.shape[:2]
        image = {"id": image_id, "width": width, "height": height}
        return image | {"results": to_coco(found, image, self._ids)}

    def _picture(self, frame: Frame, found: Detections) -> None:
        if self._draw is not None:
            path = self._folder / ANNOTATED / frame.name
            path.parent.mkdir(parents=True, exist_ok=True)
            footage.write_image(path, self._drawn(frame, found))

    def _drawn(self, frame: Frame, found: Detections) -> np.ndarray:
        best = found.scores >= self._draw
        classes = found.classes[best]
        pairs = zip(classes, found.scores[best], strict=True)
        texts = [f"{self._detector.label(int(class_id))} {score:.2f}" for class_id, score in pairs]
        return footage.annotated(frame.pixels, found.boxes[best], texts, classes)

    def _write(
        self, entries: list[tuple[str, dict[str, Any]]], unread: dict[str, str]
    ) -> list[dict[str, Any]]:
        """Writes the results and, without annotations, also the id that each image has in them."""
        results, images = [], []
        for number, (name, entry) in enumerate(entries, 1):
            image_id = number if entry["id"] is None else entry["id"]
            size = {side: entry[side] for side in ("width", "height")}
            images.append({"id": image_id, "file_name": name} | size)
            results += [result | {"image_id": image_id} for result in entry["results"]]
        files.write_text(self._folder / RESULTS, json.dumps(results, allow_nan=False) + "\n")
        if self._truth is None:
            count = self._detector.num_classes
            categories = [{"id": i, "name": self._detector.label(i)} for i in range(1, count + 1)]
            content = {"images": images, "annotations": [], "categories": categories, "unread": unread}
            files.write_json(self._folder / IMAGES, content)
        return results

    def _score(self, results: list[dict[str, Any]], unread: dict[str, str]) -> dict[str, float] | None:
        if self._truth is None:
            return None
        scores = self._truth.score(results)
        content = {
            "schema_version": METRICS_VERSION,
            "metrics": scores.metrics,
            "per_class": scores.per_class,
            "unread": unread,
        }
        files.write_artefact(self._folder / METRICS, content)
        return scores.metrics


def _frames(source: Video, max_images: int | None) -> Iterator[Frame]:
    for number, frame in enumerate(source, 1):
        yield frame
        if number == max_images:
            return


def _rate(count: int, seconds: float) -> float | None:
    return count / seconds if count and seconds else None


def fingerprint(path: str | os.PathLike) -> str:
    """Identifies a model: the hash of a file, or for a checkpoint the time its folder last changed."""
    if os.path.isfile(path):
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    folder = Path(path) if os.path.isdir(path) else Path(path).parent
    newest = max((entry.stat().st_mtime_ns for entry in folder.iterdir()), default=0)
    return f"{os.path.abspath(path)} {newest}"


class _Journal:
    """Results of the images processed so far, one per line, kept until the run is complete."""

    def __init__(self, path: Path, settings: dict[str, Any]):
        self._path, self._head = path, json.dumps(settings, sort_keys=True)
        self.rows = self._read()
        if not self.rows:
            files.write_text(path, self._head + "\n")
        self._stream = open(path, "a", encoding="utf-8")

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self._path.is_file():
            return {}
        lines = self._path.read_text("utf-8", "replace").splitlines()
        if not lines or lines[0] != self._head:
            return {}
        rows = {}
        for line in lines[1:]:
            # The last line may be truncated if the earlier run was killed.
            try:
                name, entry = json.loads(line)
            except ValueError:
                continue
            rows[name] = entry
        return rows

    def add(self, name: str, entry: dict[str, Any]) -> None:
        self._stream.write(json.dumps([name, entry]) + "\n")
        self._stream.flush()

    def remove(self) -> None:
        self._stream.close()
        self._path.unlink(missing_ok=True)
