"""Writes one random data set in each format, as its tools write it."""

import json
import random
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from PIL import Image

NAMES = ("bolt", "hex nut", "10 of clubs", "Öse & <Ring>")


class Truth:
    """Images (file name -> size) and boxes (file name, class, [x, y, width, height] in pixels)."""

    def __init__(self, rng: random.Random, images: int = 4, most_boxes: int = 5):
        self.sizes = {
            f"photo {i}.jpg" if i % 2 else f"p.{i}.jpg": (rng.randint(20, 900), rng.randint(20, 900))
            for i in range(images)
        }
        self.boxes = []
        for name, (width, height) in self.sizes.items():
            for _ in range(rng.randint(1, most_boxes)):
                x, y = rng.uniform(0, width * 0.8), rng.uniform(0, height * 0.8)
                across, down = rng.uniform(3, width - x), rng.uniform(3, height - y)
                self.boxes.append((name, rng.choice(NAMES), [x, y, across, down]))

    def of(self, name):
        return [(label, box) for image, label, box in self.boxes if image == name]

    def draw(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (name, size) in enumerate(self.sizes.items()):
            Image.new("RGB", size, (number * 7 % 256, 99, 120)).save(folder / name)


def voc(truth: Truth, folder: Path) -> None:
    truth.draw(folder / "images")
    (folder / "annotations").mkdir()
    for name, (width, height) in truth.sizes.items():
        objects = "".join(
            f"<object><name>{escape(label)}</name><difficult>0</difficult><bndbox><xmin>{x!r}</xmin>"
            f"<ymin>{y!r}</ymin><xmax>{x + w!r}</xmax><ymax>{y + h!r}</ymax></bndbox></object>"
            for label, (x, y, w, h) in truth.of(name)
        )
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{escape(name)}</filename>{size}{objects}</annotation>"
        (folder / "annotations" / f"{Path(name).stem}.xml").write_text(text, encoding="utf-8")


def yolo(truth: Truth, folder: Path) -> None:
    truth.draw(folder / "images" / "train")
    (folder / "labels" / "train").mkdir(parents=True)
    for name, (width, height) in truth.sizes.items():
        lines = []
        for label, (x, y, w, h) in truth.of(name):
            parts = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines.append(" ".join([str(NAMES.index(label)), *(f"{part:.6f}" for part in parts)]))
        (folder / "labels" / "train" / f"{Path(name).stem}.txt").write_text("\n".join(lines) + "\n")
    names = json.dumps(dict(enumerate(NAMES)), ensure_ascii=True)
    (folder / "data.yaml").write_text(f"path: ../datasets/parts\ntrain: images/train\nnames: {names}\n")


def cvat(truth: Truth, folder: Path) -> None:
    truth.draw(folder / "images")
    labels = "".join(f"<label><name>{escape(name)}</name></label>" for name in NAMES)
    images = "".join(
        f'<image id="{i}" name={quoteattr(name)} width="{width}" height="{height}">'
        + "".join(
            f'<box label={quoteattr(label)} occluded="0" xtl="{x!r}" ytl="{y!r}" xbr="{x + w!r}" '
            f'ybr="{y + h!r}" z_order="0"></box>'
            for label, (x, y, w, h) in truth.of(name)
        )
        + "</image>"
        for i, (name, (width, height)) in enumerate(truth.sizes.items())
    )
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    text = f"<annotations><version>1.1</version>{meta}{images}</annotations>"
    (folder / "annotations.xml").write_text(text, encoding="utf-8")


def labelme(truth: Truth, folder: Path) -> None:
    truth.draw(folder)
    for name, (width, height) in truth.sizes.items():
        shapes = [
            # From the lower right to the upper left, as a mouse may go.
            {"label": label, "points": [[x + w, y + h], [x, y]], "shape_type": "rectangle", "flags": {}}
            for label, (x, y, w, h) in truth.of(name)
        ]
        value = {
            "version": "5.4.1",
            "shapes": shapes,
            "imagePath": name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        (folder / f"{Path(name).stem}.json").write_text(json.dumps(value))


def label_studio(truth: Truth, folder: Path) -> None:
    truth.draw(folder / "images")
    tasks = []
    for number, (name, (width, height)) in enumerate(truth.sizes.items(), 1):
        result = [
            {
                "type": "rectanglelabels",
                "original_width": width,
                "original_height": height,
                "value": {
                    "x": 100 * x / width,
                    "y": 100 * y / height,
                    "width": 100 * w / width,
                    "height": 100 * h / height,
                    "rotation": 0,
                    "rectanglelabels": [label],
                },
            }
            for label, (x, y, w, h) in truth.of(name)
        ]
        image = f"/data/upload/1/0a1b2c3d-{name.replace(' ', '%20')}?x=1"
        tasks.append(
            {"id": number, "data": {"image": image}, "annotations": [{"result": result}], "predictions": []}
        )
    (folder / "project-1.json").write_text(json.dumps(tasks))


def roboflow(truth: Truth, folder: Path) -> None:
    truth.draw(folder / "train")
    numbers = {name: i for i, name in enumerate(truth.sizes)}
    root = {"id": 0, "name": "parts", "supercategory": "none"}
    classes = [{"id": i, "name": n, "supercategory": "parts"} for i, n in enumerate(NAMES, 1)]
    value = {
        "info": {},
        "licenses": [],
        "categories": [root, *classes],
        "images": [
            {"id": numbers[name], "file_name": name, "width": w, "height": h}
            for name, (w, h) in truth.sizes.items()
        ],
        "annotations": [
            {
                "id": i,
                "image_id": numbers[name],
                "category_id": NAMES.index(label) + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "segmentation": [],
                "iscrowd": 0,
            }
            for i, (name, label, box) in enumerate(truth.boxes)
        ],
    }
    (folder / "train" / "_annotations.coco.json").write_text(json.dumps(value))


def coco(truth: Truth, folder: Path) -> None:
    """The layout of COCO itself."""
    roboflow(truth, folder)
    (folder / "annotations").mkdir()
    (folder / "train").rename(folder / "train2017")
    source = folder / "train2017" / "_annotations.coco.json"
    value = json.loads(source.read_text())
    del value["categories"][0]
    source.unlink()
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(value))


WRITERS = {
    "voc": voc,
    "yolo": yolo,
    "cvat": cvat,
    "labelme": labelme,
    "label_studio": label_studio,
    "roboflow": roboflow,
    "coco": coco,
}
