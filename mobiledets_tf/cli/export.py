"""`mobiledets-export`: converts a checkpoint to a .tflite detector and measures the file."""

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from absl import flags

from mobiledets_tf.cli import app
from tflite_export.tflite.suppression import NMS, SHIPPED

FLAGS = flags.FlagValues()

flags.DEFINE_string(
    "architecture",
    None,
    "Published network (cpu, edgetpu, dsp, gpu) or an architecture file (.json); default: the network"
    " of --checkpoint_dir.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "checkpoint_dir",
    None,
    "Training folder, or a checkpoint inside one. If omitted, randomly initialised weights are "
    "exported, for timing only.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "num_classes",
    None,
    "Number of classes without the background; default: that of the training, or 90.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "image_size",
    None,
    "Side of the square input image, in pixels; default: that of the training, or 320.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "depth_multiplier", None, "Factor for all widths; default: that of the training, or 1.", flag_values=FLAGS
)
flags.DEFINE_string(
    "calibration_data",
    None,
    "Training images for calibrating the int8 ranges: a folder written by mobiledets-data (its train "
    "shards) or a TFRecord pattern. Required for int8 with a checkpoint.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "calibration_images", 100, "Number of images to calibrate with.", 1, 10_000, flag_values=FLAGS
)
flags.DEFINE_string(
    "eval_data",
    None,
    "Images for measuring AP: a folder written by mobiledets-data (its val shards) or a TFRecord pattern.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "max_eval_images",
    None,
    "Evaluate on at most this many images; default: all.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_ap_drop",
    None,
    "Fail (exit code 1) if the AP of the file is lower than that of the float model by more than this.",
    lower_bound=0,
    upper_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_output_error",
    None,
    "Fail (exit code 1) if the root mean square error of the int8 file's raw boxes or scores exceeds "
    "this many standard deviations of the float file's.",
    lower_bound=0,
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "per_tensor",
    False,
    "Use one scale for all weights of a convolution instead of one per output channel.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "quantization",
    "int8",
    ["float", "int8", "qat"],
    "Number format: float, int8 (post-training quantisation), or qat (int8 with the ranges of a "
    "checkpoint from quantisation-aware training).",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "input_type",
    None,
    ["int8", "uint8", "float"],
    "Type of the input: uint8 expects raw pixels, int8 and float expect pixels scaled to [-1, 1]; "
    "default: float for a float file, otherwise uint8.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "postprocess",
    "tflite",
    ["tflite", "none"],
    "Output: tflite adds the op TFLite_Detection_PostProcess, which returns final boxes; none returns"
    " raw boxes and class scores.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "nms",
    SHIPPED.nms,
    NMS,
    "Non-maximum suppression: fast keeps the best class of each anchor and is correct with any number"
    " of threads; regular suppresses each class separately, and LiteRT then loses a class with two or"
    " more threads.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "score_threshold",
    SHIPPED.score_threshold,
    "Minimum score of a box in the file's output. AP is always measured with 1e-8.",
    lower_bound=0,
    upper_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "max_detections",
    SHIPPED.max_detections,
    "Maximum number of boxes per image in the file's output. AP is always measured with 100.",
    1,
    1000,
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "bundle",
    False,
    "Also write bundle/: the file (compiled if edgetpu_compiler is installed), its labels, one "
    "example program each for pycoral, LiteRT and MediaPipe, and a Frigate configuration.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "seed",
    0,
    "Random seed for selecting calibration images and initialising weights.",
    0,
    2**32 - 1,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "output_dir",
    None,
    "Folder for detector.tflite, labels.txt, report.json, report.html, architecture.json and detections.png.",
    flag_values=FLAGS,
)
flags.mark_flag_as_required("output_dir", flag_values=FLAGS)

DESCRIPTION = """
Exports a detector to TFLite and evaluates the file: AP, compared with the float model on the same images,
operations, latency on this CPU, and readiness for accelerators.

  mobiledets-export --checkpoint_dir=runs/train --calibration_data=tfrecords --eval_data=tfrecords \\
      --output_dir=runs/export
  mobiledets-export --architecture=edgetpu --output_dir=timing   # random weights, for timing
"""


def main() -> None:
    """Exports a detector and prints the result in a few lines."""
    from tflite_export.export.options import ExportOptions

    settings = app.options(FLAGS, ExportOptions).settings()
    # TensorFlow is loaded from here on.
    from tflite_export.export import exporter
    from tflite_export.tflite import labels as label_files

    if settings.source.checkpoint is None:
        app.note(f"no --checkpoint_dir: {exporter.FRESH_WEIGHTS}")
    if settings.is_int8 and not settings.calibration_files:
        app.note("no --calibration_data: the int8 ranges are calibrated on noise")
    if FLAGS.nms == "regular" and FLAGS.postprocess == "tflite":
        from tflite_export.tflite.suppression import THREADS_NOTE

        app.note(f"--nms=regular: {THREADS_NOTE}")
    if settings.options.input_type == "int8" and settings.options.postprocess == "tflite":
        from tflite_export.export.bundle import INT8_REFUSED

        app.note(f"--input_type=int8: {INT8_REFUSED}")
    report = exporter.export(settings, FLAGS.output_dir, _progress)
    if odd := label_files.misread(settings.source.labels):
        app.note(
            f"{len(odd)} class names begin with a number ({odd[0]!r}): Frigate and pycoral misread "
            f"{label_files.PLAIN}; use {label_files.INDEXED} with them"
        )
    print("\n".join(summary_lines(report, FLAGS.output_dir)))


def summary_lines(report: dict, output_dir: str) -> list[str]:
    """Formats the result of an export as lines of text."""
    lines = []
    for name in ("float", "float_tflite", "int8"):
        if report.get(name):
            lines.append(f"{name:<14} AP {report[name]['AP']:.4f}  AP50 {report[name]['AP50']:.4f}")
    if nms := report["nms"]:
        figures = ", ".join(f"{name} {nms[name]['AP']:.4f}" for name in ("fast", "regular"))
        options = report["options"]
        lines.append(
            f"{'AP by nms':<14} {figures}; the file uses {nms['shipped']} and has AP "
            f"{nms['as_shipped']['AP']:.4f} with its own thresholds ({options['score_threshold']:g}, "
            f"{options['max_detections']} boxes)"
        )
        if nms["shipped"] == "regular":
            threads = (f"{count}: {found['AP']:.4f}" for count, found in nms["regular_on_threads"].items())
            lines.append(f"{'AP on threads':<14} {', '.join(threads)}; {nms['note']}")
    if error := report["quantization_error"]:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in error["outputs"].items())
        lines.append(f"{'int8 error':<14} {figures} (relative), on {error['images']} images")
    operators = ", ".join(f"{count} {name}" for name, count in report["file"]["histogram"].items())
    latency, ready = report["latency"], report["readiness"]["edgetpu"]
    verdict = "ready" if ready["ready"] else f"not ready, {len(ready['findings'])} findings"
    return [
        *lines,
        f"{'network':<14} {report['params']:,} parameters, {report['madds']:,} multiply-adds",
        f"{'operations':<14} {operators}",
        f"{'file':<14} {os.path.join(output_dir, 'detector.tflite')}, {report['file']['bytes']:,} bytes",
        f"{'host latency':<14} {latency['median_ms']:.2f} ms, {latency['threads']} thread",
        f"{'edgetpu':<14} {verdict} (static check)",
    ]


def _progress(iterable: Iterable, total: int | None, what: str, stream: TextIO | None = None) -> Iterable:
    from tqdm import tqdm

    return tqdm(iterable, total=total, desc=what, file=stream or sys.stderr)


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
