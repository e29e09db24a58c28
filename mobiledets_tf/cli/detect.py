"""`mobiledets-detect`: runs a detector on an image, a folder of images, a video or a camera."""

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from absl import flags

from mobiledets_tf.cli import app
from mobiledets_tf.errors import CheckFailed

if TYPE_CHECKING:
    from tflite_export.detector.detect import Summary

FLAGS = flags.FlagValues()
_DEVICES = ("host_cpu", "coral")
# Number of unreadable images that the message names; the written files list all of them.
_NAMED = 5

flags.DEFINE_string(
    "model",
    None,
    "Detector: any .tflite file with post-processing, from this project or elsewhere, or a training folder.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "images", None, "An image, a folder of images, a video file, or camera:0.", flag_values=FLAGS
)
flags.DEFINE_string(
    "output_dir",
    "detections",
    "Folder for annotated copies and detections.json (COCO results).",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "annotations", None, "COCO annotations of the images; if given, AP is measured.", flag_values=FLAGS
)
flags.DEFINE_string(
    "labels",
    None,
    "File of class names, one per line, with or without an index; default: the names inside the model"
    " or in a file beside it.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "device",
    "host_cpu",
    _DEVICES,
    "Device that runs the detector; coral is an attached Edge TPU.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("threads", 1, "Number of CPU threads of the runtime.", 1, 256, flag_values=FLAGS)
flags.DEFINE_float(
    "score_threshold",
    0.3,
    "Minimum score of a box: boxes below it are not drawn, nor written unless AP is measured.",
    lower_bound=0,
    upper_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "max_images",
    None,
    "Process at most this many images or frames; default: all.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_bool("draw", True, "Write annotated copies of the images.", flag_values=FLAGS)
flags.DEFINE_enum("format", "text", ["text", "json"], "Output format.", flag_values=FLAGS)
flags.mark_flag_as_required("model", flag_values=FLAGS)
flags.mark_flag_as_required("images", flag_values=FLAGS)

DESCRIPTION = """
Detects objects in images, videos or a camera stream. Writes annotated copies and detections.json (COCO
results) to --output_dir, and prints AP if annotations are given. A camera runs until Ctrl-C. Images of a
folder that cannot be read are skipped and listed; the exit code is then 1.

  mobiledets-detect --model=runs/export/detector.tflite --images=cards/val --output_dir=found
  mobiledets-detect --model=runs/export/detector.tflite --images=cards/val --output_dir=found \\
      --annotations=cards/instances_val.json
  mobiledets-detect --model=runs/export/detector.tflite --images=camera:0 --device=coral
"""


def main() -> None:
    """Runs the detector, writes its results and prints a summary."""
    from tflite_export.detector import detect
    from tflite_export.detector.options import DetectOptions

    summary = detect.run(app.options(FLAGS, DetectOptions), _progress)
    if summary.interrupted:
        raise KeyboardInterrupt
    result = {
        "output_dir": FLAGS.output_dir,
        "images": summary.images,
        "detections": summary.detections,
        "images_per_s": summary.images_per_s,
        "skipped": summary.skipped,
        "unread": summary.unread,
        "metrics": summary.metrics,
    }
    print(json.dumps(result, indent=1) if FLAGS.format == "json" else as_text(result))
    if summary.fault:
        raise CheckFailed(summary.fault)
    if summary.unread:
        raise CheckFailed(_unread(summary, scored=FLAGS.annotations is not None))


def _unread(summary: "Summary", scored: bool) -> str:
    """Describes the images that could not be read, in one line."""
    reasons = list(summary.unread.values())
    count, more = len(reasons), ", ..." if len(reasons) > _NAMED else ""
    missed = ", and AP counts their boxes as missed" if scored else ""
    where = "metrics.json" if scored else "images.json"
    return (
        f"{count} of {count + summary.images} images could not be read{missed}; all others were processed "
        f"({where} lists the unreadable ones): {'; '.join(reasons[:_NAMED])}{more}"
    )


def as_text(result: dict) -> str:
    """Formats the summary as text."""
    rate = f", {result['images_per_s']:.1f} images/s without drawing" if result["images_per_s"] else ""
    lines = [
        f"{result['images']} images, {result['detections']} detections{rate}; written to "
        f"{result['output_dir']}"
    ]
    if result["skipped"]:
        lines.append(f"{result['skipped']} images of the folder are not in the annotations and were skipped")
    if metrics := result["metrics"]:
        lines.append(", ".join(f"{name} {metrics[name]:.4f}" for name in ("AP", "AP50", "AP75", "AR100")))
    return "\n".join(lines)


def _progress(items: Iterable, total: int | None) -> Iterable:
    from tqdm import tqdm

    return tqdm(items, total=total, desc="detect", unit="image", file=sys.stderr)


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
