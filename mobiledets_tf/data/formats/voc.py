"""Reads Pascal VOC: one XML file per image, in one folder, beside the images, or as a VOCdevkit.

`xmin` and `xmax` are read as the edges of a box, as the Object Detection API's own script does.
"""

from collections import defaultdict
from pathlib import Path
from xml.etree.ElementTree import Element

from mobiledets_tf.data import coco
from mobiledets_tf.data.formats import xml_files
from mobiledets_tf.data.formats.collecting import (
    TRAIN,
    Collector,
    Damaged,
    Images,
    corners,
    files_below,
    number,
    read_text,
    split_of,
)

NAME, LOOKS_LIKE = "voc", "XML files with <annotation>"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_LISTS = ("train", "val", "test")


def recognises(place: Path) -> bool:
    """Returns whether a file or folder contains annotations of this format."""
    return any(xml_files.root_tag(path) == "annotation" for path in files_below(place, ".xml"))


def read(folder: Path, place: Path) -> list[coco.Split]:
    """Reads the splits of a file or folder; `folder` is the one with the images."""
    collector = Collector(NAME, place, Images(folder))
    lists = _lists(place)
    for path in files_below(place, ".xml"):
        if xml_files.root_tag(path) not in ("annotation", ""):
            continue
        split = _listed(path, lists) if lists else split_of(path, place if place.is_dir() else None) or TRAIN
        if split is None:
            collector.notes["images that no list in ImageSets/Main names, not used"] += 1
            continue
        try:
            _read_file(collector, split, path, xml_files.root_of(path))
        except Damaged as damaged:
            collector.fault(path, "file", str(damaged), split)
    return collector.splits()


def _read_file(collector: Collector, split: str, path: Path, root: Element) -> None:
    name = _image_name(collector, path, root)
    size = tuple(number(xml_files.text_of(root, f"size/{side}")) for side in ("width", "height"))
    image_id = collector.image(split, name, size, (str(path), "image"))
    for index, item in enumerate(root.iter("object"), 1):
        where = (str(path), f"object {index}")
        box = item.find("bndbox")
        if box is None:
            collector.fault(path, where[1], "has no 'bndbox'", split)
            continue
        if xml_files.text_of(item, "difficult") == "1":
            collector.notes["boxes marked as difficult, used like all others"] += 1
        values = [xml_files.text_of(box, side) for side in _SIDES]
        collector.box(split, image_id, xml_files.text_of(item, "name") or "", corners(values), where)


def _image_name(collector: Collector, path: Path, root: Element) -> str:
    """Finds the image of an XML file by the name given in it, otherwise by the XML file's own name."""
    given = xml_files.text_of(root, "filename") or ""
    found = collector.images.find(given, path)
    if found is not None:
        return found
    by_stem = collector.images.of_stem(path.stem, path)
    if by_stem is not None:
        collector.notes["XML files that name a missing image; the image named like the XML is used"] += 1
        return by_stem
    return given or f"{path.stem}.jpg"


def _lists(place: Path) -> dict[tuple[Path, str], str]:
    """Maps (folder in a VOCdevkit, name without suffix) to splits; only for folders with several splits."""
    found: dict[tuple[Path, str], str] = {}
    by_folder: dict[Path, set[str]] = defaultdict(set)
    for path in files_below(place, ".txt"):
        if path.stem in _LISTS and path.parent.name == "Main":
            year = path.parent.parent.parent
            try:
                lines = read_text(path).splitlines()
            except Damaged:
                continue
            by_folder[year].add(path.stem)
            for line in lines:
                if line.split():
                    found.setdefault((year, line.split()[0]), path.stem)
    whole = {year for year, names in by_folder.items() if len(names) > 1}
    return {key: split for key, split in found.items() if key[0] in whole}


def _listed(path: Path, lists: dict[tuple[Path, str], str]) -> str | None:
    return lists.get((path.parent.parent, path.stem))
