"""Divides one split into a training and a validation split."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

from mobiledets_tf.data import coco, duplicates
from mobiledets_tf.data.check import Checked
from mobiledets_tf.errors import InputError

TRAIN, VAL = "train", "val"
DEFAULT_SHARE = 0.2


def divide(checked: Checked, share: float = DEFAULT_SHARE) -> list[Checked]:
    """Divides the images of one split into a training and a validation split.

    Which images are held out depends only on their file names, so that a growing data set keeps
    its validation images. Images of one group (a video, a scene) and near-duplicates of an image
    stay on the same side, unless that would leave the other side empty.

    Args:
      checked: the check result of one split.
      share: fraction of the images to hold out; each side gets at least one image.

    Returns:
      The training split and the validation split.

    Raises:
      InputError: there are fewer than two images.
    """
    images = checked.dataset.images
    if len(images) < 2:
        raise InputError(f"{checked.split.annotations} has {len(images)} image; at least two are needed")
    held_out = min(max(round(share * len(images)), 1), len(images) - 1)
    together = _together(checked)
    val = _chosen(together, held_out, len(images))
    notes = list(checked.warnings)
    if not val:
        val = _chosen([[image] for image in images], held_out, len(images))
        notes.append("all images are near-duplicates or in one group, so both splits have some of them")
    elif joined := sum(len(members) for members in together if len(members) > 1):
        kinds = sum(len(members) > 1 for members in together)
        notes.append(
            f"groups and near-duplicates, each kept within one split: {kinds}, with {joined} images in total"
        )
    checked = dataclasses.replace(checked, warnings=tuple(notes))
    return [
        _part(checked, TRAIN, {image.id for image in images} - val),
        dataclasses.replace(_part(checked, VAL, val), warnings=()),
    ]


def _together(checked: Checked) -> list[list[coco.Image]]:
    """Groups the images that have to stay on the same side; most groups have one image."""
    images = checked.dataset.images
    place = {image.id: index for index, image in enumerate(images)}
    pairs = ((place[members[0]], place[other]) for members in _joined(checked) for other in members[1:])
    found = duplicates.components(len(images), pairs)
    return [[images[index] for index in members] for members in found]


def _joined(checked: Checked) -> Iterator[list[int]]:
    """Yields lists of image ids: first those of each named group, then those of near-duplicates."""
    by_name: dict[str, list[int]] = {}
    for image in checked.dataset.images:
        if image.group:
            by_name.setdefault(image.group, []).append(image.id)
    yield from by_name.values()
    ids = [image.id for image in checked.dataset.images if image.id in checked.prints]
    near = duplicates.groups([checked.prints[image_id] for image_id in ids])
    yield from ([ids[index] for index in members] for members in near)


def _chosen(together: Sequence[Sequence[coco.Image]], wanted: int, images: int) -> set[int]:
    """Returns the ids of the images to hold out; empty if no complete group can be held out."""
    ranked = sorted(together, key=lambda members: min(map(_rank, members)))
    chosen: set[int] = set()
    for members in ranked:
        # A group is skipped if it would exceed the wanted number of images; only as the first one may
        # it exceed that number, if it has less than half of all images.
        if len(chosen) >= wanted:
            break
        if len(chosen) + len(members) <= max(wanted, 1) or (not chosen and len(members) < images / 2):
            chosen |= {image.id for image in members}
    return chosen


def _rank(image: coco.Image) -> bytes:
    return hashlib.sha256(image.file_name.encode()).digest()


def _part(checked: Checked, name: str, ids: set[int]) -> Checked:
    data = checked.dataset
    part = dataclasses.replace(
        data,
        images=tuple(image for image in data.images if image.id in ids),
        annotations=tuple(box for box in data.annotations if box.image_id in ids),
    )
    prints = {image_id: each for image_id, each in checked.prints.items() if image_id in ids}
    return dataclasses.replace(
        checked,
        split=dataclasses.replace(checked.split, name=name),
        dataset=part,
        prints=prints,
        repaired=checked.repaired & ids,
    )
