"""Decisions inside plain data, and the traversal that all operations on a space share.

A space consists of nested frozen dataclasses and tuples that contain `OneOf` nodes. Counting,
sampling, encoding, selecting and hashing all traverse it in the same order: fields and items in
the order of their definition, and a node before the contents of its choices. The idea comes from
`schema.py` of TuNAS (arXiv 2008.06120).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A choice between alternatives.

    Attributes:
      choices: one or more alternatives: plain values, or data that contains further `OneOf` nodes.
      tag: `op` or `filters`; determines which warm-up the search applies to the decision.
    """

    choices: tuple[Any, ...]
    tag: str


def map_one_ofs(visit: Callable[[str, OneOf], Any], node: Any, path: str = "") -> Any:
    """Rebuilds `node` with each outermost `OneOf` replaced by `visit(path, one_of)`.

    Args:
      visit: called with the path (such as `blocks/2/layers/0/op`) and the `OneOf`; to descend into its
        choices, it has to call `map_one_ofs` on them itself.
      node: dataclass, tuple, `OneOf` or a plain value.
      path: path of `node`.
    """
    if isinstance(node, OneOf):
        return visit(path, node)
    if isinstance(node, tuple):
        return tuple(map_one_ofs(visit, item, _join(path, index)) for index, item in enumerate(node))
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = [field.name for field in dataclasses.fields(node)]
        values = {name: map_one_ofs(visit, getattr(node, name), _join(path, name)) for name in fields}
        return dataclasses.replace(node, **values)
    return node


def one_ofs(node: Any) -> tuple[tuple[str, OneOf], ...]:
    """Returns the (path, node) pairs of all `OneOf` nodes in traversal order, nested ones included."""
    found: list[tuple[str, OneOf]] = []

    def visit(path: str, one_of: OneOf) -> OneOf:
        found.append((path, one_of))
        for index, choice in enumerate(one_of.choices):
            map_one_ofs(visit, choice, _join(path, index))
        return one_of

    map_one_ofs(visit, node)
    return tuple(found)


def select(node: Any, decisions: Sequence[int] | np.ndarray) -> Any:
    """Replaces each `OneOf` by the chosen alternative.

    Args:
      node: the search space.
      decisions: one index per node of `one_ofs(node)`; those inside alternatives that are
        not chosen are ignored.
    """
    position = {path: index for index, (path, _) in enumerate(one_ofs(node))}

    def visit(path: str, one_of: OneOf) -> Any:
        chosen = decisions[position[path]]
        return map_one_ofs(visit, one_of.choices[chosen], _join(path, chosen))

    return map_one_ofs(visit, node)


def on_path(node: Any, decisions: Sequence[int] | np.ndarray) -> tuple[bool, ...]:
    """Returns which decisions are in effect, that is, not inside an alternative that was not chosen.

    Args:
      node: the search space.
      decisions: one index per node of `one_ofs(node)`.

    Returns:
      One bool per decision.
    """
    position = {path: index for index, (path, _) in enumerate(one_ofs(node))}
    counts = [False] * len(position)

    def visit(path: str, one_of: OneOf) -> None:
        counts[position[path]] = True
        chosen = decisions[position[path]]
        map_one_ofs(visit, one_of.choices[chosen], _join(path, chosen))

    map_one_ofs(visit, node)
    return tuple(counts)


def size(node: Any) -> int:
    """Returns the exact number of different selections."""
    if isinstance(node, OneOf):
        return sum(size(choice) for choice in node.choices)
    if isinstance(node, tuple):
        return math.prod(size(item) for item in node)
    if dataclasses.is_dataclass(node):
        return math.prod(size(getattr(node, field.name)) for field in dataclasses.fields(node))
    return 1


def content_hash(node: Any) -> str:
    """Returns the first 16 hex digits of SHA-256 over the data, including the names of dataclasses."""
    text = json.dumps(_plain(node), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(node: Any) -> Any:
    if isinstance(node, tuple):
        return [_plain(item) for item in node]
    if dataclasses.is_dataclass(node):
        fields = {field.name: _plain(getattr(node, field.name)) for field in dataclasses.fields(node)}
        return {"": type(node).__name__} | fields
    return node


def _join(path: str, part: Any) -> str:
    return f"{path}/{part}" if path else str(part)
