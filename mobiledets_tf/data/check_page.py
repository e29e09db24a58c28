"""Writes a data check as one self-contained HTML page: counts, drawn boxes, duplicates, suspicious boxes."""

import base64
import os
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from mobiledets_tf import html_parts
from mobiledets_tf.data import coco, duplicates, image_files, statistics, suspicious
from mobiledets_tf.data.check import Checked
from mobiledets_tf.files import write_text

# Number of images of each split on the contact sheet.
_SHOWN = 24
_SIDE = 240
_LISTED = 50
_COLOURS = ("#2ca02c", "#d62728", "#1f77b4", "#ff7f0e", "#9467bd", "#17becf", "#e377c2", "#bcbd22")
_CROWD = "#888888"
# COCO's upper limits of small and medium boxes, as square roots of areas, in pixels.
_SMALL, _MEDIUM = 32, 96


def write(
    path: str | os.PathLike,
    checked: Sequence[Checked],
    input_size: int,
    augmented: dict[str, Sequence[np.ndarray]] | None = None,
) -> None:
    """Writes the page, atomically.

    Args:
      path: path of the page.
      checked: check results of all splits.
      input_size: side of the detector's input, in pixels.
      augmented: maps section titles to augmented images, uint8 [side, side, 3]; None shows none.
    """
    parts = ["<h1></h1>"]
    for each in checked:
        parts.append(html_parts.section(each.split.name, *_split(each, input_size)))
    parts.append(html_parts.section("Duplicate images", *_repeats(checked)))
    for title, images in (augmented or {}).items():
        parts.append(html_parts.section(title, _sheet(_png(Image.fromarray(image)) for image in images)))
    write_text(path, html_parts.document("", "\n".join(parts)))


def _split(each: Checked, input_size: int) -> list[str]:
    measured = statistics.measure(each.dataset, input_size)
    lines = [*map(str, each.faults), *each.warnings, *measured.warnings()]
    shown = _list(lines) if lines else "<p>No faults or warnings.</p>"
    return [
        f"<p>{html_parts.text(each.summary())}</p>",
        shown,
        "<h3>Boxes of each class by size</h3>",
        _counts(each.dataset, input_size),
        "<h3>Suspicious boxes</h3>",
        _suspicious(each, input_size),
        "<h3>Images that the decoder used in training rejects</h3>",
        _refused(each),
        f"<h3>{min(_SHOWN, len(each.dataset.images))} images with their boxes</h3>",
        _sheet(_thumbnails(each)),
    ]


def _counts(dataset: coco.Dataset, input_size: int) -> str:
    names = {category.id: category.name for category in dataset.categories}
    sizes = {image.id: (image.width, image.height) for image in dataset.images}
    counts = {name: [0] * 6 for name in names.values()}
    for box in dataset.annotations:
        row = counts[names[box.category_id]]
        if box.is_crowd:
            row[5] += 1
            continue
        side = box.area**0.5
        row[0] += 1
        row[1 + (side >= _SMALL) + (side >= _MEDIUM)] += 1
        row[4] += _input_side(box, sizes[box.image_id], input_size) < statistics.SMALL_SIDE
    columns = (
        "class",
        "boxes",
        f"small (below {_SMALL} px)",
        f"medium (below {_MEDIUM} px)",
        "large",
        f"below {statistics.SMALL_SIDE} px at {input_size}x{input_size}",
        "crowds",
    )
    return html_parts.table(columns, [(name, *row) for name, row in counts.items()])


def _input_side(box: coco.Annotation, size: tuple[int, int], input_size: int) -> float:
    """Returns the root of a box's area at the input size, in pixels; the image is stretched to a square."""
    return input_size * (box.bbox[2] * box.bbox[3] / (size[0] * size[1])) ** 0.5


def _suspicious(each: Checked, input_size: int) -> str:
    files = {image.id: image for image in each.dataset.images}
    rows = []
    for box in each.dataset.annotations:
        image = files[box.image_id]
        side = _input_side(box, (image.width, image.height), input_size)
        reasons = [
            reason
            for reason, found in (
                ("normalised coordinates", suspicious.is_in_first_pixel(box)),
                ("corners instead of a size", suspicious.is_corners(box)),
                ("smaller than its annotated area", suspicious.is_smaller_than_its_area(box)),
                ("below 4 px at the input size", side < 4),
                ("covers the whole image", _is_whole(box, image)),
            )
            if found and not box.is_crowd
        ]
        if reasons:
            bbox = ", ".join(f"{value:.5g}" for value in box.bbox)
            rows.append((box.id, image.file_name, bbox, "; ".join(reasons)))
    return _table(("annotation", "image", "x, y, width, height", "reason"), rows)


def _is_whole(box: coco.Annotation, image: coco.Image) -> bool:
    return box.bbox[2] >= image.width - 1 and box.bbox[3] >= image.height - 1


def _refused(each: Checked) -> str:
    files = {image.id: image.file_name for image in each.dataset.images}
    return _table(
        ("image", "file"), [(image_id, files.get(image_id, "")) for image_id in sorted(each.repaired)]
    )


def _repeats(checked: Sequence[Checked]) -> list[str]:
    """Returns a table of the groups of identical and nearly identical images across all splits."""
    keys = [
        (each.split.name, image.file_name, each.prints[image.id])
        for each in checked
        for image in each.dataset.images
        if image.id in each.prints
    ]
    found = duplicates.groups([each for _, _, each in keys])
    rows = []
    for members in found:
        same = len({keys[index][2].checksum for index in members}) == 1
        splits = sorted({keys[index][0] for index in members})
        shown = ", ".join(f"{keys[index][0]}/{keys[index][1]}" for index in members[:10])
        more = f" and {len(members) - 10} more" if len(members) > 10 else ""
        rows.append((len(members), "identical" if same else "similar", ", ".join(splits), shown + more))
    rows.sort(key=lambda row: (-len(row[2]), -row[0]))
    return [_table(("images", "kind", "splits", "files"), rows)]


def _table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    if not rows:
        return "<p>None.</p>"
    more = f"<p>and {len(rows) - _LISTED} more</p>" if len(rows) > _LISTED else ""
    return html_parts.table(columns, rows[:_LISTED]) + more


def _list(lines: Sequence[str]) -> str:
    shown = "".join(f"<li>{html_parts.text(line)}</li>" for line in lines[:_LISTED])
    more = f"<li>and {len(lines) - _LISTED} more</li>" if len(lines) > _LISTED else ""
    return f"<ul>{shown}{more}</ul>"


# --- images ------------------------------------------------------------------------------------


def _sheet(images: Iterable[str]) -> str:
    return f"<p>{' '.join(images)}</p>"


def _thumbnails(each: Checked) -> Iterable[str]:
    boxes = each.dataset.by_image()
    names = {category.id: category.name for category in each.dataset.categories}
    for image in chosen(each):
        try:
            data = each.split.read_picture(image.file_name)
            picture = image_files.decode(data, (image.width, image.height), image.as_stored).convert("RGB")
        except (image_files.PictureError, OSError):
            continue
        words = ", ".join(sorted({names[box.category_id] for box in boxes[image.id]})) or "no boxes"
        yield _png(_drawn(picture, boxes[image.id]), f"{image.file_name}: {words}")


def chosen(each: Checked) -> list[coco.Image]:
    """Chooses the images to show; classes take turns, rarest first, so that every class appears early."""
    boxes = each.dataset.by_image()
    counts: dict[int, int] = {}
    for box in each.dataset.annotations:
        counts[box.category_id] = counts.get(box.category_id, 0) + 1
    shown: dict[int, coco.Image] = {}
    sound = [image for image in each.dataset.images if image.id in each.prints]
    by_class: dict[int, list[coco.Image]] = {}
    for image in sound:
        for category_id in {box.category_id for box in boxes[image.id]}:
            by_class.setdefault(category_id, []).append(image)
    order = sorted(by_class, key=counts.__getitem__)
    for turn in range(_SHOWN):
        for category_id in order:
            if len(shown) < _SHOWN and turn < len(by_class[category_id]):
                image = by_class[category_id][turn]
                shown[image.id] = image
    for image in sound:
        if len(shown) < _SHOWN:
            shown[image.id] = image
    return list(shown.values())


def _drawn(picture: Image.Image, boxes: Sequence[coco.Annotation]) -> Image.Image:
    scale = _SIDE / max(picture.size)
    right, bottom = (max(1, round(side * scale)) for side in picture.size)
    small = picture.resize((right, bottom))
    pen = ImageDraw.Draw(small)
    for box in boxes:
        x, y, width, height = (value * scale for value in box.bbox)
        colour = _CROWD if box.is_crowd else _COLOURS[box.category_id % len(_COLOURS)]
        pen.rectangle((x, y, x + width, y + height), outline=colour, width=2)
    return small


def _png(picture: Image.Image, words: str = "") -> str:
    data = base64.b64encode(image_files.encode(picture, 80)).decode()
    title = html_parts.text(words)
    return f'<img alt="{title}" title="{title}" src="data:image/jpeg;base64,{data}">'
