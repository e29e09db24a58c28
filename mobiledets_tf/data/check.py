"""Finds every fault of a data folder: annotation files and images together."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tqdm import tqdm

from mobiledets_tf.data import coco, pictures
from mobiledets_tf.data.text import show


@dataclass(frozen=True)
class Checked:
    """One split, what is sound in its annotation file, and all its faults."""

    split: coco.Split
    dataset: coco.Dataset
    faults: tuple[coco.Fault, ...]

    def summary(self) -> str:
        """One line of counts."""
        data = self.dataset
        empty = sum(not boxes for boxes in data.by_image().values())
        crowds = sum(annotation.is_crowd for annotation in data.annotations)
        return (
            f"{self.split.name}: {len(data.images)} images ({empty} without boxes), "
            f"{len(data.annotations)} boxes ({crowds} crowd), {len(data.categories)} categories, "
            f"{len(self.faults)} faults"
        )


def check(splits: Sequence[coco.Split]) -> list[Checked]:
    """Checks annotation files, decodes every image, and compares the categories of the splits.

    Raises:
      InputError: an annotation file is no JSON object, or is empty (see `coco.load`).
    """
    loaded = [(split, *coco.load(split)) for split in splits]
    first, expected, _ = loaded[0]
    return [
        Checked(
            split,
            data,
            (*faults, *_category_faults(split, data, first, expected), *_image_faults(split, data)),
        )
        for split, data, faults in loaded
    ]


def _category_faults(
    split: coco.Split, data: coco.Dataset, first: coco.Split, expected: coco.Dataset
) -> list[coco.Fault]:
    """Splits of one folder share one list of classes."""
    ours, theirs = ({(c.id, c.name) for c in each.categories} for each in (data, expected))
    only = [(f"is not in {first.annotations.name}", c) for c in sorted(ours - theirs)]
    only += [(f"of {first.annotations.name} is missing here", c) for c in sorted(theirs - ours)]
    return [
        coco.Fault(str(split.annotations), f"category {category_id}", f"{show(name)} {reason}")
        for reason, (category_id, name) in only
    ]


def _image_faults(split: coco.Split, data: coco.Dataset) -> list[coco.Fault]:
    """Decodes all images, several at a time."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        reasons = pool.map(lambda image: _image_fault(split, image), data.images)
        progress = {"desc": f"check {split.name}", "total": len(data.images), "unit": "image"}
        with tqdm(reasons, leave=False, **progress) as shown:
            return list(_named(split, data.images, shown))
    finally:
        pool.shutdown(cancel_futures=True)


def _named(
    split: coco.Split, images: Sequence[coco.Image], reasons: Iterable[str | None]
) -> Iterable[coco.Fault]:
    for image, reason in zip(images, reasons, strict=True):
        if reason:
            yield coco.Fault(str(split.annotations), f"image {image.id}", reason)


def _image_fault(split: coco.Split, image: coco.Image) -> str | None:
    """Why an image cannot be used, or None."""
    try:
        path = pictures.locate(split.images, image.file_name)
    except pictures.PictureError as error:
        return str(error)
    try:
        pictures.decode(path.read_bytes(), (image.width, image.height))
    except (pictures.PictureError, OSError) as error:
        return f"file {show(image.file_name)} {error}"
    return None
