"""Weights a training starts from: checkpoints of this project, in full account."""

import os

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


def read(path: str | os.PathLike, settings: NetworkSettings) -> Account:
    """The weights of a checkpoint of this project for a network.

    The last convolutions of the class predictors stay fresh where the class count differs.

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
    for conv in target.convolutions():
        names = {conv.kernel: conv.kernel_shape}
        width = (conv.op.out_channels,)
        if conv.op.batch_norm:
            names |= {conv.norm(part): width for part in BN_WEIGHTS}
        else:
            names[conv.bias] = width
        missing = next((name for name in names if name not in given), None)
        if missing:
            raise InputError(f"checkpoint {prefix!r} is of another network: it has no {missing}")
        if conv.depends_on_classes and given[conv.bias].shape != width:
            slots = given[conv.bias].shape[0] * (settings.num_classes + 1) // width[0]
            why = f"it is for {slots - 1} classes, the network has {settings.num_classes}"
            account.leave_fresh(list(names), list(names), why)
            continue
        for name, shape in names.items():
            account.take(name, given[name], name, shape)
    left = sorted(given.keys() - account.weights.keys() - account.fresh.keys())
    if left:
        raise InputError(f"checkpoint {prefix!r} is of another network: {left[0]} is not in the network")
    return account

