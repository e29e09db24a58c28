"""Initial weights of a training run from a checkpoint of this project, with every weight accounted for."""

import os
from collections.abc import Mapping
from pathlib import Path

from mobiledets_tf import architecture as architectures
from mobiledets_tf.data import classes
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import checkpoints, trained_folder
from mobiledets_tf.weights.imported_weights import Account, Target, is_folded


def is_own(path: str | os.PathLike) -> bool:
    """Returns whether a path is a checkpoint with canonical names, or a folder with such a checkpoint."""
    try:
        return bool(checkpoints.shapes(path))
    except InputError:
        return False


def described(path: str | os.PathLike, image_size: tuple[int, int] | None = None) -> Target | None:
    """Returns the detector that a checkpoint's folder describes, or None if it describes none.

    Args:
      path: a folder, or the prefix of a checkpoint in it.
      image_size: (height, width) of the wanted detector in pixels, which affects no weight; default:
        that of the folder.

    Raises:
      InputError: a file of the description is damaged.
    """
    folder = trained_folder.folder_of(path)
    network = trained_folder.network(folder) if trained_folder.names_network(folder) else None
    if network is None:
        return None
    given = trained_folder.settings(folder)
    size = image_size or architectures.image_hw(tuple(given["image_size"]))
    return Target(network, given["num_classes"], size, float(given["depth_multiplier"]))


def read(path: str | os.PathLike, target: Target, names: Mapping[int, str] | None = None) -> Account:
    """Reads the weights of a checkpoint of this project for a network.

    The last convolutions of the class predictors keep their initial weights if the number of classes
    differs or, where the checkpoint's folder has a label map, if the class names differ.

    Args:
      path: a checkpoint, or a folder whose latest checkpoint is read.
      target: the detector that the weights are for.
      names: maps the ids of the network's classes to their names.

    Raises:
      InputError: a weight is missing or left over, or its shape differs for a reason other than the
        classes; the message names both shapes.
    """
    prefix = checkpoints.find(path)
    account = Account(prefix, "checkpoint", target)
    given, convolutions = checkpoints.values(prefix), target.convolutions()
    renamed = _renamed(os.path.dirname(prefix), names)
    for conv in convolutions:
        missing = next((name for name in conv.weights if name not in given), None)
        if missing:
            raise InputError(f"checkpoint {prefix!r} belongs to another network: it has no {missing}")
        width = conv.op.out_channels
        if conv.depends_on_classes and given[conv.bias].shape != (width,):
            slots = given[conv.bias].shape[0] * (target.num_classes + 1) // width
            why = f"it has {slots - 1} classes, but the network has {target.num_classes}"
            account.leave_fresh(list(conv.weights), list(conv.weights), why)
            continue
        if conv.depends_on_classes and renamed:
            account.leave_fresh(list(conv.weights), list(conv.weights), renamed)
            continue
        for name, shape in conv.weights.items():
            account.take(name, given[name], name, shape)
    left = sorted(given.keys() - account.weights.keys() - account.fresh.keys())
    if left:
        raise InputError(f"checkpoint {prefix!r} belongs to another network: {left[0]} is not in the network")
    account.folded_norm = is_folded(convolutions, account.weights)
    return account


def _renamed(folder: str, names: Mapping[int, str] | None) -> str:
    """Explains how the classes of a checkpoint's folder differ from `names`; '' if they don't."""
    if names is None or not (before := trained_folder.class_names(Path(folder))):
        return ""
    different = classes.differences(names, before)
    if not different:
        return ""
    number = different[0]
    return f"class {number} is {before.get(number)!r} in the weights and {names.get(number)!r} in the data"
