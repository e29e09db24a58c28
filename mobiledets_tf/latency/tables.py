"""Tables of costs that add up over layers, with one row per feature of `LayerOneHot`.

Any quantity of a list of placed operations (multiply-adds, sums by type of convolution) is computed once
for every option of a search space. The quantity of a network is then a sum of rows.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from mobiledets_tf.architecture import ConvSpec, head, specs
from mobiledets_tf.architecture.ops import PlacedOp, lower, lower_extra_level, lower_predictor, place
from mobiledets_tf.search_space import SKIP, SearchLayer, SearchSpace

# (operations, whether a residual addition follows) -> the quantity, of any type that supports addition.
Count = Callable[[list[PlacedOp], bool], Any]


def layer_tables(
    space: SearchSpace, image_size: tuple[int, int], num_classes: int, head_name: str, count: Count
) -> tuple[list, list[PlacedOp]]:
    """Computes a quantity for every feature of `LayerOneHot`.

    Args:
      space: the search space.
      image_size: (height, width) in pixels.
      num_classes: number of classes without the background.
      head_name: `ssdlite`, or `none` for the backbone alone.
      count: computes the quantity from the operations of one layer.

    Returns:
      The quantity of every feature, in the order of `LayerOneHot`, and the operations of the detector
      that do not depend on any decision.
    """
    rows = [count(_stem(space, filters, image_size), False) for filters in space.stem_filters.choices]
    size, in_choices, sizes = specs.strided(image_size, 2), space.stem_filters.choices, {}
    for number, block in enumerate(space.blocks):
        for layer in block.layers:
            rows += _layer(space, layer, in_choices, block.filters.choices, size, count)
            size, in_choices = specs.strided(size, layer.strides), block.filters.choices
        sizes[number] = size
    levels = [specs.ENDPOINTS[name] for name in specs.ENDPOINT_STRIDES]
    for level, index in enumerate(levels):
        for channels in space.blocks[index].filters.choices:
            ops = _of_endpoint(space, level, channels, sizes[index], num_classes)
            rows.append(count(ops if head_name == "ssdlite" else [], False))
    rest = _rest(space, sizes[levels[-1]], num_classes) if head_name == "ssdlite" else []
    return rows, rest


def _stem(space: SearchSpace, filters: int, size: tuple[int, int]) -> list[PlacedOp]:
    return place("stem", lower(ConvSpec(filters, strides=2), 3, space.activation, None), size)[0]


def _layer(
    space: SearchSpace,
    layer: SearchLayer,
    in_choices: tuple[int, ...],
    out_choices: tuple[int, ...],
    size: tuple[int, int],
    count: Count,
) -> list:
    """Returns the quantity of each option of a layer in the order [input width, option, output width]."""
    rows = []
    for c_in, option, c_out in itertools.product(in_choices, layer.op.choices, out_choices):
        # A residual layer keeps its width, so entries with unequal widths are never read.
        if option == SKIP or (layer.residual and c_in != c_out):
            rows.append(count([], False))
            continue
        spec = option.to_spec(c_out, layer.strides, layer.residual)
        ops = place("", lower(spec, c_in, space.activation, space.se_ratio), size)[0]
        rows.append(count(ops, layer.residual))
    return rows


def _of_endpoint(
    space: SearchSpace, level: int, channels: int, size: tuple[int, int], num_classes: int
) -> list[PlacedOp]:
    """Returns the operations that read C4 (level 0) or C5 (level 1)."""
    ops = _predictors(space, level, channels, size, num_classes)
    if level == 1:
        ops += place("extra1", lower_extra_level(channels, space.extra_filters[0]), size)[0]
    return ops


def _predictors(
    space: SearchSpace, level: int, channels: int, size: tuple[int, int], num_classes: int
) -> list[PlacedOp]:
    anchors = space.anchors_per_location[level]
    outputs = (head.BOX_CODE_SIZE, num_classes + 1)
    return [op for n in outputs for op in place("predictor", lower_predictor(channels, anchors * n), size)[0]]


def _rest(space: SearchSpace, size: tuple[int, int], num_classes: int) -> list[PlacedOp]:
    """Returns the operations that do not depend on any decision.

    These are the extra levels after the first one and the predictors on all extra levels.
    """
    ops, filters = [], space.extra_filters
    for level, channels in enumerate(filters):
        if level > 0:
            ops += place("extra", lower_extra_level(filters[level - 1], channels), size)[0]
        size = specs.strided(size, 2)
        ops += _predictors(space, level + 2, channels, size, num_classes)
    return ops


def total_madds(ops: Sequence[PlacedOp], residual: bool = False) -> float:
    """Returns the multiply-adds of operations; usable as a `Count`."""
    return float(sum(placed.madds for placed in ops))
