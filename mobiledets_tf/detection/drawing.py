"""Draws boxes on images for TensorBoard."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

TRUE, FOUND = (40, 220, 40), (255, 40, 40)


def draw_boxes(
    image: np.ndarray, truth: Iterable[Sequence[float]], found: Iterable[Sequence[float]]
) -> np.ndarray:
    """Draws ground-truth boxes in green and detected boxes in red; boxes without an area are left out.

    Args:
      image: float [height, width, 3] in [-1, 1].
      truth, found: ground-truth and detected boxes (ymin, xmin, ymax, xmax) as fractions of the image.

    Returns:
      uint8 [height, width, 3].
    """
    pixels = np.clip((np.asarray(image, np.float32) + 1) * 127.5, 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    for boxes, colour in ((truth, TRUE), (found, FOUND)):
        for top, left, bottom, right in boxes:
            corners = (
                left * picture.width,
                top * picture.height,
                right * picture.width,
                bottom * picture.height,
            )
            # Padding has no area.
            if corners[2] > corners[0] and corners[3] > corners[1]:
                pen.rectangle(corners, outline=colour, width=2)
    return np.asarray(picture)
