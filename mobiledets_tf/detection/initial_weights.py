"""Weights a training starts from: checkpoints of this project, in full account."""

import os
from collections.abc import Mapping

from mobiledets_tf.data import classes, records
from mobiledets_tf.detection import checkpoints
from mobiledets_tf.detection.imported import BN_WEIGHTS, Account, Target
from mobiledets_tf.detection.network_settings import NetworkSettings
from mobiledets_tf.errors import InputError


def is_own(path: str | os.PathLike) -> bool:
    """Whether a path is a checkpoint, or a folder with one, that carries canonical names."""
    try:
        return bool(checkpoints.shapes(path))
    except InputError:
        return False


def read(
    path: str | os.PathLike, settings: NetworkSettings, names: Mapping[int, str] | None = None
) -> Account:  # fmt: skip
    """The weights of a checkpoint of this project for a network.

    The last convolutions of the class predictors stay fresh where the classes differ in number or,
    where the checkpoint's folder says their names, by name.

    Args:
      path: a checkpoint, or a folder whose latest one is taken.
      settings: of the network.
      names: class id -> name, of the network's classes.

    Raises:
      InputError: a weight is missing, left over, or of another shape that has nothing to do with
        the classes; both shapes are named.
    """
    prefix = checkpoints.find(path)
    target = Target(
        settings.architecture, settings.num_classes, settings.image_size, settings.depth_multiplier
    )
    account = Account(prefix, "checkpoint", target)
    given = checkpoints.values(prefix)
    renamed = _renamed(os.path.dirname(prefix), names)
    for conv in target.convolutions():
        shapes = {conv.kernel: conv.kernel_shape}
        width = (conv.op.out_channels,)
        if conv.op.batch_norm:
            shapes |= {conv.norm(part): width for part in BN_WEIGHTS}
        else:
            shapes[conv.bias] = width
        missing = next((name for name in shapes if name not in given), None)
        if missing:
            raise InputError(f"checkpoint {prefix!r} is of another network: it has no {missing}")
        if conv.depends_on_classes and given[conv.bias].shape != width:
            slots = given[conv.bias].shape[0] * (settings.num_classes + 1) // width[0]
            why = f"it is for {slots - 1} classes, the network has {settings.num_classes}"
            account.leave_fresh(list(shapes), list(shapes), why)
            continue
        if conv.depends_on_classes and renamed:
            account.leave_fresh(list(shapes), list(shapes), renamed)
            continue
        for name, shape in shapes.items():
            account.take(name, given[name], name, shape)
    left = sorted(given.keys() - account.weights.keys() - account.fresh.keys())
    if left:
        raise InputError(f"checkpoint {prefix!r} is of another network: {left[0]} is not in the network")
    return account


def _renamed(folder: str, names: Mapping[int, str] | None) -> str:
    """Why the class predictors of a folder are of other classes, or ''."""
    path = os.path.join(folder, records.LABEL_MAP)
    if names is None or not os.path.exists(path):
        return ""
    before = records.read_label_map(path)
    different = classes.differences(names, before)
    if not different:
        return ""
    number = different[0]
    return f"class {number} was {before.get(number)!r} there, is {names.get(number)!r} here"
