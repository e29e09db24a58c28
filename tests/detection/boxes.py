"""A tiny data set for training tests: bright squares on dark noise, two classes."""

from pathlib import Path

import numpy as np

from mobiledets_tf.compat import tf

CLASSES = ("red", "blue")


def example(rng: np.random.Generator, index: int, size: int = 96, crowd: bool = False) -> tf.train.Example:
    """One image with up to two squares; every fifth has none. Keys of the Object Detection API."""
    image = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
    boxes, labels = [], []
    for label in range(0 if index % 5 == 4 else 1 + index % 2):
        side = int(rng.integers(size // 4, size // 2))
        top, left = (int(v) for v in rng.integers(0, size - side, 2))
        image[top : top + side, left : left + side, 2 * label] = 220
        boxes.append((top / size, left / size, (top + side) / size, (left + side) / size))
        labels.append(label + 1)
    columns = np.array(boxes, np.float32).reshape(-1, 4).T
    features = {
        "image/encoded": _bytes([tf.io.encode_jpeg(image).numpy()]),
        "image/format": _bytes([b"jpeg"]),
        "image/filename": _bytes([f"{index}.jpg".encode()]),
        "image/source_id": _bytes([str(index).encode()]),
        "image/height": _ints([size]),
        "image/width": _ints([size]),
        "image/object/class/label": _ints(labels),
        "image/object/class/text": _bytes([CLASSES[label - 1].encode() for label in labels]),
        "image/object/is_crowd": _ints([int(crowd)] * len(labels)),
        "image/object/area": _floats([(b[2] - b[0]) * (b[3] - b[1]) * size * size for b in boxes]),
    }
    for name, column in zip(("ymin", "xmin", "ymax", "xmax"), columns, strict=True):
        features[f"image/object/bbox/{name}"] = _floats(column)
    return tf.train.Example(features=tf.train.Features(feature=features))


def write(folder: Path, train: int = 16, val: int = 5) -> Path:
    """Writes `train` and `val` shards and the label map; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    for split, count in (("train", train), ("val", val)):
        with tf.io.TFRecordWriter(str(folder / f"{split}-00000-of-00001.tfrecord")) as writer:
            for index in range(count):
                writer.write(example(rng, index).SerializeToString())
    items = [f"item {{\n  id: {i}\n  name: '{name}'\n}}\n" for i, name in enumerate(CLASSES, 1)]
    (folder / "label_map.pbtxt").write_text("".join(items), encoding="utf-8")
    return folder


def _bytes(values) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _ints(values) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
