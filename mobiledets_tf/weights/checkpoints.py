"""Reads and writes checkpoints with canonical weight names, accounting for every weight.

A training checkpoint is an ordinary TensorFlow object checkpoint that stores the weights of the
detector under `model/named_weights/<name>`; `name` is the variable's own name, for example
`stem_conv/kernel:0`. Any network with the same names and shapes can load them.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from mobiledets_tf.compat import tf
from mobiledets_tf.errors import InputError, first_line

_ROOT = "model/named_weights/"
# Key prefix of the ranges observed during quantisation-aware training.
_RANGES = "model/ranges/"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_STEP = "step" + _SUFFIX
_SHOWN = 3
# The checkpoint reader raises one of these for a damaged checkpoint, depending on TensorFlow's status code.
READ_ERRORS = (tf.errors.OpError, ValueError, RuntimeError, IndexError)


def find(path: str | os.PathLike) -> str:
    """Returns the prefix of the checkpoint at a path, or of the latest checkpoint in a folder.

    Raises:
      InputError: there is no checkpoint.
    """
    path = os.fspath(path)
    if tf.io.gfile.isdir(path):
        latest = tf.train.latest_checkpoint(path)
        if latest is None:
            raise InputError(f"folder {path!r} contains no checkpoint")
        return latest
    prefix = path.removesuffix(".index")
    if not tf.io.gfile.exists(prefix + ".index"):
        raise InputError(f"checkpoint {path!r} does not exist")
    return prefix


def kept(model_dir: str | os.PathLike) -> list[str]:
    """Returns the prefixes of all checkpoints that a training run has kept in a folder, oldest first."""
    state = tf.train.get_checkpoint_state(os.fspath(model_dir))
    return list(state.all_model_checkpoint_paths) if state else []


def step(path: str | os.PathLike) -> int:
    """Returns the training step of a checkpoint, or 0 if it stores none."""
    reader = open_reader(find(path))
    return int(reader.get_tensor(_STEP)) if reader.has_tensor(_STEP) else 0


def shapes(path: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all weights in a checkpoint by canonical name."""
    return {name: tuple(shape) for name, (_, shape) in _entries(open_reader(find(path))).items()}


def values(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the values of all weights in a checkpoint by canonical name.

    Raises:
      InputError: there is no checkpoint, or it is damaged.
    """
    prefix = find(path)
    reader = open_reader(prefix)
    return _read(reader, {name: key for name, (key, _) in _entries(reader).items()}, prefix)


def has_ranges(path: str | os.PathLike) -> bool:
    """Returns whether a checkpoint has the activation ranges of quantisation-aware training."""
    return bool(_entries(open_reader(find(path)), _RANGES))


def restore_ranges(ranges: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Assigns a checkpoint's observed ranges to a quantised detector (`models.quantized`).

    Raises:
      InputError: the checkpoint does not come from quantisation-aware training of this network.
    """
    prefix = find(path)
    reader = open_reader(prefix)
    entries = {name: key for name, (key, _) in _entries(reader, _RANGES).items()}
    unknown = sorted(entries.keys() ^ ranges.keys())
    if unknown:
        what = (
            "contains no activation ranges: it was not trained with --quantization_aware"
            if not entries
            else (f"belongs to another network: range {unknown[0]} occurs in only one of the two")
        )
        raise InputError(f"checkpoint {prefix!r} {what}")
    for name, value in _read(reader, entries, prefix).items():
        ranges[name].assign(value)


def _read(reader: Any, keys: Mapping[str, str], prefix: str) -> dict[str, Any]:
    try:
        return {name: reader.get_tensor(key) for name, key in keys.items()}
    except READ_ERRORS as error:
        raise InputError(f"checkpoint {prefix!r} is damaged: {first_line(error)}") from error


def check(named_weights: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Raises InputError unless the checkpoint contains every weight with the same shape."""
    prefix = find(path)
    _check(named_weights, shapes(prefix), prefix)


def restore(keras_model: Any, path: str | os.PathLike, named_weights: Mapping[str, Any] | None = None) -> str:
    """Restores a detector's weights from a checkpoint by canonical name.

    Args:
      keras_model: a detector built by `models.build_detector`.
      path: a checkpoint prefix, or a folder whose latest checkpoint is read.
      named_weights: variables by canonical name; default: `keras_model.weights` by name.

    Returns:
      The prefix of the checkpoint that was read.

    Raises:
      InputError: there is no checkpoint, it is damaged, or it belongs to another network: the
        message lists the first names that are missing, left over or have another shape. No weight
        is changed in these cases.
    """
    if named_weights is None:
        named_weights = {weight.name: weight for weight in keras_model.weights}
    prefix = find(path)
    reader = open_reader(prefix)
    entries = _entries(reader)
    _check(named_weights, {name: tuple(shape) for name, (_, shape) in entries.items()}, prefix, exact=True)
    given = _read(reader, {name: entries[name][0] for name in named_weights}, prefix)
    for name, weight in named_weights.items():
        weight.assign(given[name])
    return prefix


def save(named_weights: Mapping[str, Any], directory: str | os.PathLike, global_step: int = 0) -> str:
    """Writes weights as a checkpoint that training and export read; returns its prefix."""
    model = tf.train.Checkpoint(named_weights=dict(named_weights))
    checkpoint = tf.train.Checkpoint(model=model, step=tf.Variable(global_step, dtype=tf.int64))
    return tf.train.CheckpointManager(checkpoint, os.fspath(directory), max_to_keep=None).save()


def open_reader(prefix: str) -> Any:
    """Opens a checkpoint; raises InputError if it is damaged."""
    try:
        return tf.train.load_checkpoint(prefix)
    except READ_ERRORS as error:
        raise InputError(f"checkpoint {prefix!r} cannot be read: {first_line(error)}") from error


def _entries(reader: Any, root: str = _ROOT) -> dict[str, tuple[str, list[int]]]:
    """Maps each canonical name to (key in the checkpoint, shape)."""
    found = {}
    for key, shape in reader.get_variable_to_shape_map().items():
        if key.startswith(root) and key.endswith(_SUFFIX) and ".OPTIMIZER_SLOT" not in key:
            found[_unescape(key[len(root) : -len(_SUFFIX)])] = (key, shape)
    return found


def _unescape(key: str) -> str:
    # TensorFlow escapes "/" in a name as ".S" and "." as "..".
    return re.sub(r"\.(.)", lambda found: "/" if found[1] == "S" else found[1], key)


def _check(
    named_weights: Mapping[str, Any], given: Mapping[str, tuple[int, ...]], prefix: str, exact: bool = False
) -> None:
    if not given:
        raise InputError(f"checkpoint {prefix!r} contains no detector of this project (no {_ROOT}...)")
    wanted = {name: tuple(weight.shape) for name, weight in named_weights.items()}
    faults = []
    for name, shape in wanted.items():
        if name not in given:
            faults.append(f"{name} {shape} is missing from the checkpoint")
        elif given[name] != shape:
            faults.append(f"{name} is {given[name]} in the checkpoint and {shape} in the network")
    if exact:
        left = [name for name in given if name not in wanted]
        faults += [f"{name} {given[name]} is not in the network" for name in left]
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InputError(
            f"checkpoint {prefix!r} belongs to another network: {'; '.join(faults[:_SHOWN])}{more}"
        )
