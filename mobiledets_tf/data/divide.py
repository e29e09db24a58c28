"""One split made into a training and a validation split."""

import dataclasses
import hashlib

from mobiledets_tf.data.check import Checked
from mobiledets_tf.errors import InputError

TRAIN, VAL = "train", "val"
DEFAULT_SHARE = 0.2


def divide(checked: Checked, share: float = DEFAULT_SHARE) -> list[Checked]:
    """Training and validation split of the images of one split.

    Which images are held out depends on their file names alone, so that a data set that grows
    keeps its validation images.

    Args:
      checked: one split.
      share: of the images that is held out; at least one is, and one stays.

    Raises:
      InputError: there are fewer than two images.
    """
    images = checked.dataset.images
    if len(images) < 2:
        raise InputError(f"{checked.split.annotations} has {len(images)} image; two are needed")
    held_out = min(max(round(share * len(images)), 1), len(images) - 1)
    ranked = sorted(images, key=lambda image: hashlib.sha256(image.file_name.encode()).digest())
    val = {image.id for image in ranked[:held_out]}
    return [
        _part(checked, TRAIN, {image.id for image in images} - val),
        _part(checked, VAL, val),
    ]


def _part(checked: Checked, name: str, ids: set[int]) -> Checked:
    data = checked.dataset
    part = dataclasses.replace(
        data,
        images=tuple(image for image in data.images if image.id in ids),
        annotations=tuple(box for box in data.annotations if box.image_id in ids),
    )
    return dataclasses.replace(checked, split=dataclasses.replace(checked.split, name=name), dataset=part)
