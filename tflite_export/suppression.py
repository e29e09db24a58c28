"""Settings of the post-process op, and changing them in a finished file without converting again.

The op keeps them as a flexbuffer in its custom options; `tensorflow/lite/kernels/
detection_postprocess.cc` says what it reads.
"""

import dataclasses
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from mobiledets_tf.architecture import head
from mobiledets_tf.errors import InputError
from tflite_export import flatbuffer, layout

NMS = ("fast", "regular")
_MOST = 100_000
# Seen with LiteRT 2.3.0 and 10 classes on 1 to 16 threads: classes 3 to 10 are lost on 2 to 9 of them.
THREADS_NOTE = (
    "regular suppression on N threads, N from 2 to one less than the number of classes, never returns class "
    "N + 1 (LiteRT; tensorflow issue 56058): run such a file on one thread"
)


@dataclasses.dataclass(frozen=True)
class Suppression:
    """Settings of the post-processing, shared by the float and the .tflite path.

    The defaults are those of COCO's measure and of training; `SHIPPED` are those of a file for use.

    Attributes:
      max_detections: kept for an image; regular suppression keeps at most 100 of a class.
      iou_threshold: a box that overlaps a better one by more is dropped.
      score_threshold: lower scores are dropped.
      nms: `regular` suppresses each class on its own; `fast` keeps the best class of each anchor and
        suppresses across classes.
    """

    max_detections: int = head.MAX_DETECTIONS
    iou_threshold: float = head.IOU_THRESHOLD
    score_threshold: float = head.SCORE_THRESHOLD
    nms: str = "regular"

    def for_evaluation(self) -> "Suppression":
        """The same kind of suppression with the threshold and the number that AP is measured with."""
        return dataclasses.replace(
            self, max_detections=head.MAX_DETECTIONS, score_threshold=head.SCORE_THRESHOLD
        )


# What applications look at: nobody shows boxes of lower scores, and a sorting of thousands of candidates
# takes as long as a small network. Frigate reads up to 20 rows. Fast, as Google's MobileDets: right on
# any number of threads.
SHIPPED = Suppression(max_detections=25, score_threshold=0.2, nms="fast")


def options_of(model: schema.ModelT) -> dict[str, Any] | None:
    """What a file's post-process op is set to; None without one.

    Raises:
      InputError: the options cannot be read.
    """
    op = layout.post_process_of(model)
    if op is None:
        return None
    try:
        options = flexbuffers.Loads(np.asarray(op.customOptions, np.uint8).tobytes())
        # Readers get what they count on.
        counts = {name: int(options[name]) for name in ("num_classes", "max_detections")}
    except Exception as error:  # a damaged flexbuffer fails with almost anything
        raise InputError("the options of the post-process op are damaged") from error
    for name, count in counts.items():
        if not 0 < count <= _MOST:
            raise InputError(f"the post-process op has {name} {count}; allowed: 1 to {_MOST:,}")
    return options | counts


def apply(model: schema.ModelT, settings: Suppression) -> None:
    """Sets a file's post-process op, and the shapes of its outputs; does nothing without one."""
    options = options_of(model)
    if options is None:
        return
    given = {
        "max_detections": settings.max_detections,
        "max_classes_per_detection": 1,
        "detections_per_class": settings.max_detections,
        "use_regular_nms": settings.nms == "regular",
        # As float32: a number of eight bytes makes all of the map's wide, and OpenCV reads four of each.
        "nms_score_threshold": float(np.float32(settings.score_threshold)),
        "nms_iou_threshold": float(np.float32(settings.iou_threshold)),
    }
    # OpenCV finds the settings of a map of exactly the ten that the converter writes. It leaves out
    # `detections_per_class`, which regular suppression then takes to be 100.
    options |= {name: value for name, value in given.items() if name in options}
    op = layout.post_process_of(model)
    op.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(options)), np.uint8)
    shapes = ((1, settings.max_detections, 4), (1, settings.max_detections), (1, settings.max_detections))
    for index, shape in zip(op.outputs, shapes, strict=False):
        tensor = model.subgraphs[0].tensors[index]
        if tensor.shape is not None and len(tensor.shape):
            tensor.shape, tensor.shapeSignature = list(shape), None


def changed(data: bytes, settings: Suppression) -> bytes:
    """A detector's file with other settings; the archive of its metadata is left out."""
    model = flatbuffer.unpack(data)
    apply(model, settings)
    return flatbuffer.pack(model)


def of_file(model: schema.ModelT) -> Suppression | None:
    """The settings of a file, or None for one without post-processing."""
    options = options_of(model)
    if options is None:
        return None
    return Suppression(
        int(options["max_detections"]), _short(options["nms_iou_threshold"]),
        _short(options["nms_score_threshold"]), "regular" if options.get("use_regular_nms") else "fast",
    )  # fmt: skip


def _short(value: float) -> float:
    """The number that was meant by its nearest float32."""
    return float(f"{value:.7g}")
