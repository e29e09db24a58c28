"""Imports weights of any origin into a folder that training and export read."""

import dataclasses
import os
from typing import Any

from mobiledets_tf.architecture import Architecture
from mobiledets_tf.data import folders, preprocessing, records
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import fitting, imported_weights, own_checkpoint, readers
from mobiledets_tf.weights.imported_weights import Account, Target


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The detector that weights are imported for; None keeps the value that belongs to the weights.

    Attributes:
      architecture: the network; weights of another network are remapped.
      num_classes: number of classes without the background.
      image_size: (height, width) in pixels.
      depth_multiplier: the depth multiplier of the weights, if the source does not state it.
    """

    architecture: Architecture | None = None
    num_classes: int | None = None
    image_size: tuple[int, int] | None = None
    depth_multiplier: float = 1.0

    def target(self, theirs: Target) -> Target:
        """Returns the detector of the weights with everything that is wanted replaced."""
        network = self.architecture
        asked = {
            "architecture": network,
            "num_classes": self.num_classes,
            "image_size": self.image_size,
            # The widths of a searched network are final.
            "depth_multiplier": 1.0 if network and network.origin else None,
        }
        given: dict[str, Any] = {name: value for name, value in asked.items() if value}
        return dataclasses.replace(theirs, **given)


def import_weights(
    path: str, output_dir: str | os.PathLike, wanted: Wanted, calibration_data: str | None = None
) -> Account:
    """Reads weights, fits them to the wanted detector and writes a checkpoint with its account.

    Args:
      path: folder or checkpoint of this project, TF1 checkpoint, or .tflite file.
      output_dir: the folder to write; it is written completely or not at all.
      wanted: the detector that the weights are for.
      calibration_data: converted folder or TFRecord pattern of images, from which missing batch
        normalisation is recovered; None leaves it folded.

    Raises:
      InputError: there are no weights, or they are damaged or fit no known network.
    """
    account, target = read(path, wanted)
    images = None
    if calibration_data is not None:
        images = preprocessing.batches(records.resolve(calibration_data, "train"), target.image_size)
    account = fitting.fit(account, target, images)
    with folders.new_folder(output_dir) as staging:
        imported_weights.write(account, staging)
    return account


def read(path: str, wanted: Wanted) -> tuple[Account, Target]:
    """Reads weights of any origin as they are; returns them and the wanted detector.

    Args:
      path: folder or checkpoint of this project, TF1 checkpoint, or .tflite file.
      wanted: the detector that the weights are for; `fitting.fit` fits them to it.

    Raises:
      InputError: there are no weights, or they are damaged or fit no known network.
    """
    if own_checkpoint.is_own(path):
        theirs = own_checkpoint.described(path, wanted.image_size)
        if theirs is None:
            raise InputError(f"--weights={path}: architecture.json and settings.json are missing beside it")
        target = wanted.target(theirs)
        return readers.read_for(path, target), target
    account = _read_foreign(path, wanted)
    return account, wanted.target(account.target)


def _read_foreign(path: str, wanted: Wanted) -> Account:
    """Reads weights that this project did not write.

    The weights are read as those of the wanted network. If that fails, they are read as those of a
    published network, from which they can be remapped.

    Raises:
      InputError: the weights fit neither; the message refers to the wanted network.
    """
    size, multiplier = wanted.image_size, wanted.depth_multiplier
    try:
        return readers.read(path, wanted.architecture, wanted.num_classes, size, multiplier)
    except InputError as error:
        if wanted.architecture is None:
            raise
        first = error
    try:
        return readers.read(path, None, None, size, multiplier)
    except InputError:
        raise first from None
