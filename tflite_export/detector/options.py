"""Options of detection in images, a video or a camera."""

import dataclasses

from mobiledets_tf.options import Options, option
from tflite_export.detector.detector import DEVICES, SCORE_THRESHOLD


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectOptions(Options):
    """Options of running a detector: the flags of `mobiledets-detect`.

    Attributes:
      model: a .tflite detector with post-processing, or a training folder.
      images: an image, a folder of images, a video file, or `camera:0`.
      output_dir: folder for annotated copies and `detections.json` (COCO results).
      annotations: COCO annotations of the images; AP is measured if they are given.
      labels: file of class names; by default the names inside the model or beside it.
      device: `host_cpu`, or `coral` for an attached Edge TPU.
      threads: number of threads of the runtime.
      score_threshold: boxes with lower scores are not drawn, and not written unless AP is measured.
      max_images: maximum number of images or frames, from the beginning; None processes all.
      draw: whether annotated copies are written.
    """

    model: str
    images: str
    output_dir: str = "detections"
    annotations: str | None = None
    labels: str | None = None
    device: str = option("host_cpu", choices=DEVICES)
    threads: int = option(1, low=1, high=256)
    score_threshold: float = option(SCORE_THRESHOLD, low=0, high=1)
    max_images: int | None = option(None, low=1)
    draw: bool = True
