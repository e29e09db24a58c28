"""Conversion between networks and decision vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mobiledets_tf.architecture import Architecture, ConvSpec, LayerSpec, Origin
from mobiledets_tf.errors import InputError
from mobiledets_tf.search_space.one_of import select
from mobiledets_tf.search_space.options import SKIP, LayerOption
from mobiledets_tf.search_space.sampling import check_decisions
from mobiledets_tf.search_space.spaces import SearchBlock, SearchSpace


def decode(space: SearchSpace, decisions: Sequence[int] | np.ndarray, name: str = "searched") -> Architecture:
    """Returns the network of a decision vector; its `origin` records the space and the decisions.

    Args:
      space: the search space.
      decisions: option index of each decision, int [decisions].
      name: name of the network.

    Raises:
      InputError: the number of decisions is wrong, or an index is out of range.
    """
    check_decisions(space, decisions)
    chosen = select(space, decisions)
    return Architecture(
        name=name,
        stem=ConvSpec(chosen.stem_filters, strides=2),
        blocks=tuple(_decode_block(block) for block in chosen.blocks),
        activation=space.activation,
        se_ratio=space.se_ratio,
        extra_filters=space.extra_filters,
        origin=Origin(space.name, space.hash, tuple(int(d) for d in decisions)),
    )


def encode(space: SearchSpace, architecture: Architecture) -> np.ndarray:
    """Returns the decision vector of a network; int32 [decisions]. Skipped layers come last in a block.

    Raises:
      InputError: the network is not in the space; the message says where it differs.
    """
    _check_fixed(space, architecture)
    if architecture.stem != ConvSpec(architecture.stem.filters, strides=2):
        raise InputError(f"stem of {architecture.name!r} is not a 3x3 convolution with stride 2")
    decisions = [_index(space.stem_filters.choices, architecture.stem.filters, "stem filters")]
    for number, (block, layers) in enumerate(zip(space.blocks, architecture.blocks, strict=True), 1):
        decisions += _encode_block(block, layers, f"block {number}")
    return np.array(decisions, np.int32)


def _decode_block(block: Any) -> tuple[LayerSpec, ...]:
    """Returns the layers of a block in which every `OneOf` has been replaced by the chosen alternative."""
    return tuple(
        layer.op.to_spec(block.filters, layer.strides, layer.residual)
        for layer in block.layers
        if layer.op != SKIP
    )


def _encode_block(block: SearchBlock, layers: Sequence[LayerSpec], where: str) -> list[int]:
    if len(layers) > len(block.layers):
        raise InputError(f"{where} has {len(layers)} layers; the space has {len(block.layers)}")
    decisions = [_index(block.filters.choices, layers[0].filters, f"{where} filters")]
    for position, search_layer in enumerate(block.layers):
        here = f"{where} layer {position + 1}"
        option = SKIP
        if position < len(layers):
            layer = layers[position]
            option = LayerOption.of(layer)
            if layer != option.to_spec(layers[0].filters, search_layer.strides, search_layer.residual):
                raise InputError(f"{here} differs from the space in width, stride or residual: {layer}")
        decisions.append(_index(search_layer.op.choices, option, here))
    return decisions


def _check_fixed(space: SearchSpace, architecture: Architecture) -> None:
    for field in ("activation", "se_ratio", "extra_filters"):
        theirs, ours = getattr(architecture, field), getattr(space, field)
        if theirs != ours:
            raise InputError(f"{architecture.name!r} has {field} {theirs}; space {space.name!r} has {ours}")


def _index(choices: tuple, value: object, where: str) -> int:
    if value not in choices:
        raise InputError(f"{where}: {value} is not in the space; allowed: {', '.join(map(str, choices))}")
    return choices.index(value)
