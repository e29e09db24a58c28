"""Settings of the post-process op, which can be changed in a finished file without converting again.

The op stores them as a flexbuffer in its custom options; `tensorflow/lite/kernels/
detection_postprocess.cc` shows which ones it reads.
"""

import dataclasses
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from mobiledets_tf.architecture import head
from mobiledets_tf.errors import InputError
from tflite_export.tflite import flatbuffer, layout

NMS = ("fast", "regular")
_MOST = 100_000
# Observed with LiteRT 2.3.0, 10 classes and 1 to 16 threads: 2 to 9 threads lose classes 3 to 10 in turn.
THREADS_NOTE = (
    "with regular suppression on N threads, N from 2 to one less than the number of classes, LiteRT never "
    "returns class N + 1 (tensorflow issue 56058): run such a file on one thread"
)


@dataclasses.dataclass(frozen=True)
class Suppression:
    """Settings of the post-processing, shared by the float and the .tflite path.

    The defaults are the settings of COCO evaluation and of training; `SHIPPED` is for files in use.

    Attributes:
      max_detections: maximum number of boxes in an image; regular suppression keeps at most 100 per class.
      iou_threshold: a box that overlaps a better one by more than this is dropped.
      score_threshold: boxes with a lower score are dropped.
      nms: `regular` suppresses each class separately; `fast` keeps the best class of each anchor and
        suppresses across classes.
    """

    max_detections: int = head.MAX_DETECTIONS
    iou_threshold: float = head.IOU_THRESHOLD
    score_threshold: float = head.SCORE_THRESHOLD
    nms: str = "regular"

    def for_evaluation(self) -> "Suppression":
        """Returns the same kind of suppression with the threshold and box count used to measure AP."""
        return dataclasses.replace(
            self, max_detections=head.MAX_DETECTIONS, score_threshold=head.SCORE_THRESHOLD
        )


# Settings for applications, which don't show boxes with lower scores; sorting thousands of candidates
# takes as long as a small network. Frigate reads up to 20 rows. `fast`, as in Google's MobileDets, is
# correct with any number of threads.
SHIPPED = Suppression(max_detections=25, score_threshold=0.2, nms="fast")


def options_of(model: schema.ModelT) -> dict[str, Any] | None:
    """Returns the settings of a file's post-process op, or None if there is no such op.

    Raises:
      InputError: the options cannot be read.
    """
    op = layout.post_process_of(model)
    if op is None:
        return None
    try:
        options = flexbuffers.Loads(np.asarray(op.customOptions, np.uint8).tobytes())
        # These are converted and checked here, because callers rely on them.
        counts = {name: int(options[name]) for name in ("num_classes", "max_detections")}
    except Exception as error:  # A damaged flexbuffer can raise almost any exception.
        raise InputError("the options of the post-process op are damaged") from error
    for name, count in counts.items():
        if not 0 < count <= _MOST:
            raise InputError(f"the post-process op has {name} {count}; allowed: 1 to {_MOST:,}")
    return options | counts


def apply(model: schema.ModelT, settings: Suppression) -> None:
    """Sets a file's post-process op and the shapes of its outputs; does nothing without such an op."""
    op, options = layout.post_process_of(model), options_of(model)
    if op is None or options is None:
        return
    given = {
        "max_detections": settings.max_detections,
        "max_classes_per_detection": 1,
        "detections_per_class": settings.max_detections,
        "use_regular_nms": settings.nms == "regular",
        # Stored as float32: one number of eight bytes widens all numbers of the map, but OpenCV reads four.
        "nms_score_threshold": float(np.float32(settings.score_threshold)),
        "nms_iou_threshold": float(np.float32(settings.iou_threshold)),
    }
    # OpenCV only finds the settings if the map has exactly the ten that the converter writes. These do not
    # include `detections_per_class`, which regular suppression then assumes to be 100.
    options |= {name: value for name, value in given.items() if name in options}
    op.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(options)), np.uint8)
    shapes = ((1, settings.max_detections, 4), (1, settings.max_detections), (1, settings.max_detections))
    for index, shape in zip(op.outputs, shapes, strict=False):
        tensor = model.subgraphs[0].tensors[index]
        if tensor.shape is not None and len(tensor.shape):
            tensor.shape, tensor.shapeSignature = list(shape), None


def changed(data: bytes, settings: Suppression) -> bytes:
    """Returns a detector's file with other settings, without the archive of its metadata."""
    model = flatbuffer.unpack(data)
    apply(model, settings)
    return flatbuffer.pack(model)


def of_file(model: schema.ModelT) -> Suppression | None:
    """Returns the settings of a file, or None for a file without post-processing."""
    options = options_of(model)
    if options is None:
        return None
    return Suppression(
        int(options["max_detections"]),
        _short(options["nms_iou_threshold"]),
        _short(options["nms_score_threshold"]),
        "regular" if options.get("use_regular_nms") else "fast",
    )


def _short(value: float) -> float:
    """Returns the decimal number that a float32 was rounded from."""
    return float(f"{value:.7g}")
