"""Determines the network to export and its weights, from flags and a training folder.

This module does not import TensorFlow, so that contradicting flags are reported at once.
"""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledets_tf import architecture as architectures
from mobiledets_tf.architecture import Architecture
from mobiledets_tf.data import records
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import trained_folder
from tflite_export.tflite import labels as label_files
from tflite_export.tflite.labels import NO_NAME

if TYPE_CHECKING:
    from mobiledets_tf.compat import keras

DEFAULT_NUM_CLASSES, DEFAULT_IMAGE_SIZE = 90, 320
# With this bias, fresh weights score no class above the threshold. With the usual prior of 0.01 every
# anchor would be a candidate in every class, and post-processing would take several times as long as
# the network, unlike with any trained detector.
_FRESH_CLASS_BIAS = -30.0


@dataclasses.dataclass(frozen=True)
class Source:
    """A network to export.

    Attributes:
      architecture: the architecture before scaling.
      depth_multiplier: factor that scales all widths.
      num_classes: number of classes without the background.
      image_size: (height, width) in pixels.
      checkpoint: a folder or a checkpoint prefix; None for fresh weights.
      labels: class names, starting with class 1.
    """

    architecture: Architecture
    depth_multiplier: float
    num_classes: int
    image_size: tuple[int, int]
    checkpoint: str | None
    labels: tuple[str, ...]

    def scaled(self) -> Architecture:
        """Returns the architecture at its actual widths."""
        return self.architecture.scaled(self.depth_multiplier)


def resolve(
    architecture: str | None = None,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    depth_multiplier: float | None = None,
    data: tuple[str, ...] = (),
) -> Source:
    """Combines the given flags with the settings of a training folder.

    Args:
      architecture: a published name or an architecture file.
      checkpoint: a training folder, or a checkpoint prefix in one.
      num_classes, image_size, depth_multiplier: as in `models.build_detector`.
      data: TFRecord files whose label map names the classes if the folder has no label map.

    Raises:
      InputError: something is missing, or a flag contradicts the folder.
    """
    folder = None if checkpoint is None else _folder(checkpoint)
    settings = trained_folder.settings(folder) if folder else {}
    network = _architecture(architecture, folder)
    names = _names(folder, data)
    num_classes = _agreed("num_classes", num_classes, settings, max(names, default=DEFAULT_NUM_CLASSES))
    source = Source(
        architecture=network,
        depth_multiplier=_agreed("depth_multiplier", depth_multiplier, settings, 1.0),
        num_classes=num_classes,
        image_size=_image_size(image_size, settings),
        checkpoint=checkpoint,
        labels=_labels(names, num_classes),
    )
    # This raises InputError if a size or a count is out of range.
    architectures.describe(source.scaled(), source.num_classes, source.image_size)
    return source


def _folder(checkpoint: str) -> Path:
    if not Path(checkpoint).is_dir() and not Path(f"{checkpoint.removesuffix('.index')}.index").exists():
        raise InputError(f"--checkpoint_dir={checkpoint}: this folder or checkpoint does not exist")
    return trained_folder.folder_of(checkpoint)


def _architecture(name: str | None, folder: Path | None) -> Architecture:
    trained = trained_folder.network(folder) if folder else None
    if trained is None:
        if name is None:
            where = f": {str(folder)!r} contains no {trained_folder.ARCHITECTURE}" if folder else ""
            raise InputError(f"--architecture is required{where}")
        return architectures.load(name)
    if name is not None and not _same_network(architectures.load(name), trained):
        raise InputError(
            f"--architecture={name} differs from the network of {str(folder)!r}, which is {trained.name!r}"
        )
    return trained


def _same_network(one: Architecture, other: Architecture) -> bool:
    return dataclasses.replace(one, name="", origin=None) == dataclasses.replace(other, name="", origin=None)


def _agreed(name: str, given: Any, settings: dict[str, Any], default: Any) -> Any:
    trained = settings.get(name)
    if given is not None and trained is not None and given != trained:
        raise InputError(f"--{name}={given} contradicts the training folder, which has {trained}")
    return next((value for value in (given, trained) if value is not None), default)


def _image_size(given: int | None, settings: dict[str, Any]) -> tuple[int, int]:
    size = None if given is None else [given, given]
    return architectures.image_hw(tuple(_agreed("image_size", size, settings, [DEFAULT_IMAGE_SIZE] * 2)))


def _names(folder: Path | None, data: tuple[str, ...]) -> dict[int, str]:
    """Returns class names by class id, from the label map of the training or, if missing, of the data."""
    if folder and (names := trained_folder.class_names(folder)):
        return names
    return records.read_label_map(records.label_map_path(data)) if data else {}


def _labels(names: dict[int, str], num_classes: int) -> tuple[str, ...]:
    if max(names, default=0) > num_classes:
        raise InputError(f"the label map has class {max(names)}, but the network has {num_classes} classes")
    default = NO_NAME if names else None
    lines = (names.get(number, default or f"class {number}") for number in range(1, num_classes + 1))
    # A name must fit on one line of labels.txt.
    labels = tuple(" ".join(line.split()) for line in lines)
    label_files.check(labels, "label map")
    return labels


def load_detector(source: Source, seed: int = 0) -> "keras.Model":
    """Builds the float detector with the weights of its checkpoint, or with fresh weights.

    Raises:
      InputError: the checkpoint is missing or belongs to another network.
    """
    from mobiledets_tf.compat import keras
    from mobiledets_tf.models import build_detector
    from mobiledets_tf.weights import checkpoints

    keras.utils.set_random_seed(seed)
    bias: dict[str, Any] = {"class_bias": _FRESH_CLASS_BIAS} if source.checkpoint is None else {}
    detector = build_detector(source.scaled(), source.num_classes, source.image_size, **bias)
    if source.checkpoint is not None:
        checkpoints.restore(detector, source.checkpoint)
    return detector


def check_categories(labels: tuple[str, ...], label_map: str | os.PathLike) -> None:
    """Raises InputError unless a data set's label map has the network's classes."""
    names = records.read_label_map(label_map)
    given = _labels(names, max(len(labels), max(names)))
    if given != labels:
        pairs = enumerate(zip(given, labels, strict=False), 1)
        number = next((n for n, (one, other) in pairs if one != other), len(labels) + 1)
        here = given[number - 1] if number <= len(given) else "none"
        there = labels[number - 1] if number <= len(labels) else "none"
        raise InputError(
            f"label map {str(label_map)!r} does not match the network: class {number} is {here!r} in the "
            f"label map and {there!r} in the network, which has {len(labels)} classes"
        )
