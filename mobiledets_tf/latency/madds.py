"""The device `madds`: exact multiply-adds as a linear model."""

import itertools

import numpy as np

from mobiledets_tf.architecture import ConvSpec, head, image_hw, specs
from mobiledets_tf.architecture.head import check_num_classes
from mobiledets_tf.architecture.ops import lower, lower_extra_level, lower_predictor, place
from mobiledets_tf.latency.features import LayerOneHot
from mobiledets_tf.latency.model import LatencyModel
from mobiledets_tf.search_space import SKIP, SearchLayer, SearchSpace


def madds_model(space: SearchSpace, image_size: int | tuple[int, int], num_classes: int) -> LatencyModel:
    """Multiply-adds of every decision; the sum is exact for the whole detector.

    Raises:
      InputError: image size or class count out of range.
    """
    check_num_classes(num_classes)
    size = image_hw(image_size)
    parts, size_after = [_stem(space, size)], tuple(-(-side // 2) for side in size)
    in_choices = space.stem_filters.choices
    sizes = {}
    for number, block in enumerate(space.blocks):
        for layer in block.layers:
            parts.append(_layer(space, layer, in_choices, block.filters.choices, size_after))
            size_after = tuple(-(-side // layer.strides) for side in size_after)
            in_choices = block.filters.choices
        sizes[number] = size_after
    c4, c5 = (specs.ENDPOINTS[name] for name in ("C4", "C5"))
    parts.append([_predictors(space, 0, c, sizes[c4], num_classes) for c in space.blocks[c4].filters.choices])
    parts.append(
        [
            _predictors(space, 1, c, sizes[c5], num_classes) + _extra(c, space.extra_filters[0], sizes[c5])
            for c in space.blocks[c5].filters.choices
        ]
    )
    return LatencyModel(
        device="madds",
        kind="exact",
        unit="madds",
        space=space,
        image_size=size,
        num_classes=num_classes,
        features=LayerOneHot.name,
        intercept=float(_rest(space, sizes[c5], num_classes)),
        coefficients=np.concatenate([np.ravel(part) for part in parts]).astype(np.float64),
    )


def _stem(space: SearchSpace, size: tuple[int, int]) -> list[int]:
    layers = (ConvSpec(filters, strides=2) for filters in space.stem_filters.choices)
    return [_madds(lower(spec, 3, space.activation, None), size) for spec in layers]


def _layer(space, layer: SearchLayer, in_choices, out_choices, size) -> np.ndarray:
    """[input widths, options, output widths]."""
    table = np.zeros((len(in_choices), len(layer.op.choices), len(out_choices)))
    for (i, c_in), (o, option), (j, c_out) in itertools.product(
        enumerate(in_choices), enumerate(layer.op.choices), enumerate(out_choices)
    ):
        # A residual layer keeps its width; entries with unequal widths never occur.
        if option == SKIP or (layer.residual and c_in != c_out):
            continue
        spec = option.to_spec(c_out, layer.strides, layer.residual)
        table[i, o, j] = _madds(lower(spec, c_in, space.activation, space.se_ratio), size)
    return table


def _predictors(space: SearchSpace, level: int, channels: int, size, num_classes: int) -> int:
    anchors = space.anchors_per_location[level]
    outputs = (head.BOX_CODE_SIZE, num_classes + 1)
    return sum(_madds(lower_predictor(channels, anchors * n), size) for n in outputs)


def _extra(in_channels: int, filters: int, size) -> int:
    return _madds(lower_extra_level(in_channels, filters), size)


def _rest(space: SearchSpace, size, num_classes: int) -> int:
    """What no decision changes: extra levels after the first, and predictors on all extra levels."""
    total, filters = 0, space.extra_filters
    for level, channels in enumerate(filters):
        if level > 0:
            total += _extra(filters[level - 1], channels, size)
        size = tuple(-(-side // 2) for side in size)
        total += _predictors(space, level + 2, channels, size, num_classes)
    return total


def _madds(ops, size) -> int:
    return sum(placed.madds for placed in place("", ops, size)[0])
