"""Draws the detections of several detectors side by side."""

import io
from typing import Any

import numpy as np

from tflite_export.export.evaluate import Shown

SCORE_THRESHOLD = 0.3
MAX_BOXES = 20
_INCHES = 3.2


def detections_png(shown: list[Shown], labels: list[str]) -> bytes:
    """Draws images with the boxes that each detector found: a row for each image, a column for each detector.

    Args:
      shown: the images with their detections.
      labels: class names, starting with class 1.

    Returns:
      A PNG file. White dashed boxes are the ground truth.
    """
    # This needs no window system and does not touch pyplot's global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(shown[0].found)
    figure = Figure(figsize=(_INCHES * len(names), _INCHES * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), len(names), squeeze=False)
    for row, example in zip(axes, shown, strict=True):
        for axis, name in zip(row, names, strict=True):
            _draw(axis, example, name, labels)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()


def _draw(axis: Any, example: Shown, name: str, labels: list[str]) -> None:
    found = example.found[name]
    best = found.scores >= SCORE_THRESHOLD
    axis.imshow(example.pixels)
    axis.set_axis_off()
    axis.set_title(f"{name}: image {example.name}", fontsize=8)
    for box in example.boxes:
        _rectangle(axis, box, example.pixels.shape, "white", "--")
    chosen = (values[best][:MAX_BOXES] for values in (found.boxes, found.scores, found.classes))
    for box, score, class_id in zip(*chosen, strict=True):
        color = f"C{class_id % 10}"
        x, y = _rectangle(axis, box, example.pixels.shape, color, "-")
        axis.text(
            x,
            y,
            f"{_label(labels, class_id)} {score:.2f}",
            color="white",
            fontsize=6,
            va="bottom",
            parse_math=False,
            bbox={"facecolor": color, "pad": 1, "linewidth": 0},
        )


def _label(labels: list[str], class_id: int) -> str:
    return labels[class_id - 1] if class_id <= len(labels) else str(class_id)


def _rectangle(
    axis: Any, box: np.ndarray, shape: tuple[int, ...], color: str, line: str
) -> tuple[float, float]:
    """Draws a box (ymin, xmin, ymax, xmax), given as fractions of the image; returns its top left corner."""
    from matplotlib.patches import Rectangle

    height, width = shape[:2]
    y, x = box[0] * height, box[1] * width
    size = ((box[3] - box[1]) * width, (box[2] - box[0]) * height)
    axis.add_patch(Rectangle((x, y), *size, fill=False, edgecolor=color, linestyle=line, linewidth=1))
    return float(x), float(y)
