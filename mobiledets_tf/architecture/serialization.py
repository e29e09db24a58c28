"""Reads and writes architectures as JSON files with a schema version."""

import dataclasses
import os
from typing import Any, cast

from mobiledets_tf.architecture import specs
from mobiledets_tf.architecture.published import PUBLISHED
from mobiledets_tf.errors import InputError, nearest, unknown_name
from mobiledets_tf.files import check_version, read_json, write_artefact

SCHEMA_VERSION = 1
# Far above the number of options of any decision.
MAX_OPTION = 10_000


def to_dict(architecture: specs.Architecture) -> dict[str, Any]:
    """Returns a JSON-ready dictionary, from which `from_dict` rebuilds an equal architecture."""
    origin = architecture.origin
    return {
        "schema_version": SCHEMA_VERSION,
        "name": architecture.name,
        "activation": architecture.activation,
        "se_ratio": architecture.se_ratio,
        "stem": _layer_to_dict(architecture.stem),
        "blocks": [[_layer_to_dict(layer) for layer in block] for block in architecture.blocks],
        "extra_filters": list(architecture.extra_filters),
        "origin": None
        if origin is None
        else dataclasses.asdict(origin) | {"decisions": list(origin.decisions)},
    }


def from_dict(data: Any, where: str = "architecture") -> specs.Architecture:
    """Builds an architecture from parsed JSON.

    Args:
      data: the parsed JSON.
      where: source of the data, for error messages.

    Raises:
      InputError: a key or value is missing, unknown, of the wrong type or out of range; the
        message begins with `where`.
    """
    try:
        if (
            isinstance(data, dict) and "schema_version" in data
        ):  # Checked first: a newer file may have other keys.
            check_version(data, SCHEMA_VERSION)
        if isinstance(data, dict) and "written_by" in data:  # This entry describes the file, not the network.
            _name(data["written_by"], "written_by")
            data = {key: value for key, value in data.items() if key != "written_by"}
        _check_keys(data, specs.Architecture, {"schema_version"})
        return specs.Architecture(
            name=_name(data["name"], "name"),
            stem=cast(specs.ConvSpec, _layer_from_dict(data["stem"], "stem", (specs.ConvSpec.op,))),
            blocks=_blocks(data["blocks"]),
            activation=data["activation"],
            se_ratio=data["se_ratio"],
            extra_filters=tuple(_list(data["extra_filters"], "extra_filters")),
            origin=_origin(data["origin"]),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def save(architecture: specs.Architecture, path: str | os.PathLike) -> None:
    """Writes the architecture as JSON, atomically."""
    write_artefact(path, to_dict(architecture))


def load(name_or_path: str | os.PathLike) -> specs.Architecture:
    """Loads a published network by name, or an architecture file.

    Example:
      ```python
      from mobiledets_tf import architecture

      network = architecture.load("edgetpu")  # or the architecture.json of a search
      print(network.blocks[0][0])
      ```

    Raises:
      InputError: `name_or_path` is neither a published name nor a readable architecture file.
    """
    text = os.fspath(name_or_path)
    if text in PUBLISHED:
        return PUBLISHED[text]()
    if not os.path.exists(text):  # Unlike Path.exists, this is False if the name is too long.
        if not text.endswith(".json") and os.sep not in text:
            raise unknown_name("architecture", text, [*PUBLISHED, "a JSON file"])
        raise InputError(f"architecture file {text!r} does not exist")
    return from_dict(read_json(text, "architecture file"), f"architecture file {text!r}")


def _layer_to_dict(layer: specs.LayerSpec) -> dict[str, Any]:
    return {"op": layer.op} | dataclasses.asdict(layer)


def _layer_from_dict(data: Any, where: str, allowed: tuple[str, ...]) -> specs.LayerSpec:
    if not isinstance(data, dict) or not isinstance(data.get("op"), str):
        raise InputError(f"{where}: a layer is an object with the key 'op'; given: {specs.shown(data)}")
    if data["op"] not in allowed:
        raise InputError(f"{where}: {unknown_name('op', data['op'][:60], allowed)}")
    spec = specs.LAYER_SPECS[data["op"]]
    try:
        _check_keys(data, spec, {"op"})
        return spec(**{key: value for key, value in data.items() if key != "op"})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _blocks(data: Any) -> tuple[tuple[specs.LayerSpec, ...], ...]:
    allowed = tuple(op for op in specs.LAYER_SPECS if op != specs.ConvSpec.op)
    blocks = []
    for b, block in enumerate(_list(data, "blocks"), 1):
        layers = _list(block, f"block {b}")
        if len(layers) > specs.MAX_LAYERS_PER_BLOCK:
            raise InputError(
                f"block {b} has {len(layers)} layers; allowed: at most {specs.MAX_LAYERS_PER_BLOCK}"
            )
        blocks.append(
            tuple(
                _layer_from_dict(layer, f"block {b} layer {i}", allowed) for i, layer in enumerate(layers, 1)
            )
        )
    return tuple(blocks)


def _origin(data: Any) -> specs.Origin | None:
    if data is None:
        return None
    try:
        _check_keys(data, specs.Origin, set())
        decisions = _list(data["decisions"], "decisions")
        if not all(specs.is_integer(d) and 0 <= d <= MAX_OPTION for d in decisions):
            allowed = f"integers from 0 to {MAX_OPTION}"
            raise InputError(f"decisions is {specs.shown(decisions)}; allowed: {allowed}")
        space, space_hash = (_name(data[key], key) for key in ("search_space", "space_hash"))
        return specs.Origin(space, space_hash, tuple(decisions))
    except InputError as error:
        raise InputError(f"origin: {error}") from error


def _check_keys(data: Any, cls: type, more: set[str]) -> None:
    if not isinstance(data, dict):
        raise InputError(f"a JSON object is needed; given: {specs.shown(data)}")
    keys = {field.name for field in dataclasses.fields(cls)} | more
    for key in data:
        if key not in keys:
            raise InputError(f"unknown key {specs.shown(key)}{nearest(key[:60], keys)}")
    missing = sorted(keys - set(data))
    if missing:
        raise InputError(f"key {missing[0]!r} is missing")


def _name(value: Any, what: str) -> str:
    # Names must be printable because they appear in reports, on terminals and in file names.
    if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
        raise InputError(
            f"{what} is {specs.shown(value)}; allowed: a string of 1 to 200 printable characters"
        )
    return value


def _list(value: Any, what: str) -> list:
    if not isinstance(value, list):
        raise InputError(f"{what} is {specs.shown(value)}; allowed: a list")
    return value
