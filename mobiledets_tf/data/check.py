"""Checks the annotations and images of a data folder together; reports all faults and warnings."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from mobiledets_tf.data import coco, duplicates, image_files, suspicious
from mobiledets_tf.data.text import show

EXIF_TURNS = ("auto", "upright", "stored")
# A category 0 with one of these names means the background, not an object.
_BACKGROUND = ("background", "__background__", "_background_")
# Number of images queued for the threads; queueing all images at once would need memory for each.
_AHEAD = 256


@dataclass(frozen=True)
class Checked:
    """Result of checking one split: its valid entries, its faults and its warnings.

    Attributes:
      split: location of the split.
      dataset: the valid entries of its annotation file.
      faults: faults that prevent a conversion.
      warnings: other remarks, one line each with a count.
      prints: maps the ids of usable images to their fingerprints.
      repaired: ids of images that are converted as a clean copy, because the decoder used in training
        rejects their files.
    """

    split: coco.Split
    dataset: coco.Dataset
    faults: tuple[coco.Fault, ...]
    warnings: tuple[str, ...] = ()
    prints: dict[int, duplicates.Fingerprint] = field(default_factory=dict, repr=False)
    repaired: frozenset[int] = frozenset()

    def summary(self) -> str:
        """Returns one line of counts."""
        data = self.dataset
        empty = sum(not boxes for boxes in data.by_image().values())
        crowds = sum(annotation.is_crowd for annotation in data.annotations)
        return (
            f"{self.split.name}: {len(data.images)} images ({empty} without boxes), "
            f"{len(data.annotations)} boxes ({crowds} crowd), {len(data.categories)} categories, "
            f"{len(self.faults)} faults"
        )


def check(splits: Sequence[coco.Split], exif_turn: str = "auto") -> list[Checked]:
    """Checks annotation files, decodes every image, and compares the splits.

    Args:
      splits: all splits of one data set.
      exif_turn: what the boxes refer to if an image has an EXIF orientation: the `upright` image, the
        image as `stored`, or `auto` to decide by the annotated sizes and boxes.

    Raises:
      InputError: an annotation file is not a JSON object, or is empty (see `coco.load`).
    """
    pairs = [_check_split(split, exif_turn) for split in splits]
    found = _without_root([each for each, _ in pairs])
    first = found[0]
    found = [
        dataclasses.replace(each, faults=(*each.faults, *_category_faults(each, first), *image_faults))
        for each, (_, image_faults) in zip(found, pairs, strict=True)
    ]
    return _compared(found)


def _check_split(split: coco.Split, exif_turn: str) -> tuple[Checked, list[coco.Fault]]:
    """Checks one split by itself; returns it with the faults of its file, and the faults of its images."""
    data, faults = coco.load(split)
    if exif_turn == "stored":
        data = _as_stored(data, {image.id for image in data.images})
    seen = dict(_each(split, data.images, lambda image: _see(split, image)))
    reasons = {image_id: value for image_id, value in seen.items() if isinstance(value, str)}
    image_faults = [
        coco.Fault(str(split.annotations), f"image {image.id}", reasons[image.id])
        for image in data.images
        if image.id in reasons
    ]
    sound = {image_id: value for image_id, value in seen.items() if not isinstance(value, str)}
    looks = {image_id: each for image_id, (each, _) in sound.items()}
    data, faults, notes = _turned(split, data, faults, exif_turn, looks)
    notes = [*split.notes, *notes]
    repaired = frozenset(image_id for image_id, each in looks.items() if each.is_repaired)
    if repaired:
        notes.append(
            f"images that the decoder used in training rejects: {len(repaired)}; re-encoded copies are "
            "converted instead"
        )
    notes += _unused(split, data) + suspicious.warnings(data)
    checked = Checked(
        split,
        data,
        (*faults, *suspicious.faults(str(split.annotations), data)),
        tuple(notes),
        {image_id: each for image_id, (_, each) in sound.items()},
        repaired,
    )
    return checked, image_faults


# --- images ------------------------------------------------------------------------------------


def _each(split: coco.Split, images: Sequence[coco.Image], do: Callable) -> Iterator[tuple[int, Any]]:
    """Calls `do` with every image, several in parallel, and yields (image id, result)."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        with tqdm(total=len(images), desc=f"check {split.name}", unit="image", leave=False) as bar:
            for start in range(0, len(images), _AHEAD):
                part = images[start : start + _AHEAD]
                for image, result in zip(part, pool.map(do, part), strict=True):
                    yield image.id, result
                    bar.update()
    finally:
        pool.shutdown(cancel_futures=True)


def _see(split: coco.Split, image: coco.Image) -> str | tuple[image_files.Look, duplicates.Fingerprint]:
    """Returns the look and fingerprint of an image, or the reason why it cannot be used."""
    try:
        data = split.read_picture(image.file_name)
    except image_files.PictureError as error:
        return str(error)
    except OSError as error:
        return f"file {show(image.file_name)} {error}"
    try:
        look = image_files.look(data, (image.width, image.height), image.as_stored)
        return look, duplicates.fingerprint(data)
    except image_files.PictureError as error:
        return f"file {show(image.file_name)} {error}"


def _unused(split: coco.Split, data: coco.Dataset) -> list[str]:
    """Returns a warning if the folder contains images that no entry names."""
    names = (split.pictures or image_files.Folder(split.images)).names()
    known = {os.path.normpath(image.file_name) for image in data.images}
    left = sorted(name for name in names if os.path.normpath(name) not in known)
    if not left:
        return []
    more = ", ..." if len(left) > 1 else ""
    return [
        f"images in the folder without an entry in {split.annotations.name}, not used: {len(left)} "
        f"({show(left[0])}{more})"
    ]


# --- EXIF orientation --------------------------------------------------------------------------


def _turned(
    split: coco.Split,
    data: coco.Dataset,
    faults: list[coco.Fault],
    exif_turn: str,
    looks: dict[int, image_files.Look],
) -> tuple[coco.Dataset, list[coco.Fault], list[str]]:
    """Decides whether boxes on images with an EXIF orientation refer to the upright or the stored image.

    If the annotated size is the stored one, the boxes may refer to either, because some labelling
    tools show the upright image but write the size of the stored one. The orientation that the boxes
    fit is chosen for the whole file; if they fit both, the upright one is chosen, because viewers
    show it.

    Returns:
      The data set and the faults after that decision, and at most one line that describes it.
    """
    turned = {image_id: look for image_id, look in looks.items() if look.orientation != 1}
    # Boxes in TFRecords always refer to the stored pixels.
    settled = {image.id for image in data.images if image.as_stored} & turned.keys()
    if not turned:
        return data, faults, []
    unclear = (
        {}
        if settled
        else {
            image.id: turned[image.id].upright_size
            for image in data.images
            if image.id in turned
            and turned[image.id].size == (image.width, image.height)
            and turned[image.id].upright_size != turned[image.id].size
        }
    )
    stored, why = settled, ""
    if unclear and exif_turn != "stored":
        upright, upright_faults = coco.load(split, unclear)
        if exif_turn == "auto" and len(upright_faults) > len(faults):
            # The sizes remain those of the stored image, and `image_files.decode` follows them.
            stored, why = set(unclear), "; their boxes fit only this way"
        else:
            if exif_turn == "auto" and len(upright_faults) == len(faults):
                why = (
                    f"; {len(unclear)} are annotated with the size of the stored image, and their boxes "
                    "fit both ways: --exif_turn=stored reads them as stored"
                )
            elif exif_turn == "auto":
                why = "; their boxes fit only this way"
            data, faults = upright, upright_faults
    note = (
        f"images with an EXIF orientation: {len(turned)}, of which {len(turned) - len(stored)} are read "
        f"upright and {len(stored)} as stored{why}"
    )
    return data, faults, [note]


def _as_stored(data: coco.Dataset, ids: set[int]) -> coco.Dataset:
    images = (dataclasses.replace(each, as_stored=each.id in ids) for each in data.images)
    return dataclasses.replace(data, images=tuple(images))


# --- classes -----------------------------------------------------------------------------------


def _without_root(found: list[Checked]) -> list[Checked]:
    """Removes an unused category 0 that is the parent of all others or the background, with a warning.

    Roboflow exports begin with such a parent category, which would otherwise become class 1.
    """
    used = {box.category_id for each in found for box in each.dataset.annotations}
    result = []
    for each in found:
        categories = each.dataset.categories
        root = next((c for c in categories if c.id == 0 and c.id not in used), None)
        if root is None or len(categories) < 2:
            result.append(each)
            continue
        others = [c for c in categories if c is not root]
        is_parent = all(coco.same_name(c.supercategory) == coco.same_name(root.name) for c in others)
        if not is_parent and root.name.lower() not in _BACKGROUND:
            note = f"category 0 {show(root.name)} has no boxes and becomes class 1"
            result.append(dataclasses.replace(each, warnings=(*each.warnings, note)))
            continue
        what = "is the parent of all others" if is_parent else "is the background"
        note = f"category 0 {show(root.name)} has no boxes and {what}; it is left out"
        data = dataclasses.replace(each.dataset, categories=tuple(others))
        result.append(dataclasses.replace(each, dataset=data, warnings=(*each.warnings, note)))
    return result


def _category_faults(each: Checked, first: Checked) -> list[coco.Fault]:
    """Returns the faults of a split whose classes differ from those of the first split."""
    ours, theirs = ({(c.id, c.name) for c in one.dataset.categories} for one in (each, first))
    name = first.split.annotations.name
    only = [(f"is not in {name}", c) for c in sorted(ours - theirs)]
    only += [(f"is in {name} but missing here", c) for c in sorted(theirs - ours)]
    return [
        coco.Fault(str(each.split.annotations), f"category {category_id}", f"{show(class_name)} {reason}")
        for reason, (category_id, class_name) in only
    ]


# --- duplicate images --------------------------------------------------------------------------


def _compared(found: list[Checked]) -> list[Checked]:
    """Adds warnings about images that occur more than once, within a split or across splits."""
    prints = [(place, each) for place, one in enumerate(found) for each in one.prints.values()]
    only_prints = [each for _, each in prints]
    equal = [[prints[i][0] for i in members] for members in duplicates.equal_files(only_prints).values()]
    near = [[prints[i][0] for i in members] for members in duplicates.groups(only_prints)]
    result = []
    for place, each in enumerate(found):
        notes = _lines(place, [each.split.name for each in found], equal, near)
        result.append(dataclasses.replace(each, warnings=(*each.warnings, *notes)))
    return result


def _lines(
    place: int, names: Sequence[str], equal: Iterable[list[int]], near: Iterable[list[int]]
) -> Iterator[str]:
    """Yields the warnings of split number `place`: repeats within it, and images also in an earlier split."""
    repeated = sum(max(0, members.count(place) - 1) for members in equal)
    if repeated:
        yield f"images that are identical to another image of this split: {repeated}"
    for other in range(place):
        same = sum(members.count(place) for members in equal if other in members)
        nearly = sum(members.count(place) for members in near if other in members)
        if nearly:
            yield (
                f"images that also occur in {names[other]}: {nearly}, of which {same} are identical files; "
                "metrics on them say nothing about new images"
            )
