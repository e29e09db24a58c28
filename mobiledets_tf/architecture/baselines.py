"""Networks to compare with: MobileNetV2 with the SSDLite head, and IBN-only twins."""

import dataclasses

from mobiledets_tf.architecture.head import image_hw
from mobiledets_tf.architecture.specs import (
    Architecture,
    ConvSpec,
    FusedInvertedBottleneckSpec,
    InvertedBottleneckNoExpansionSpec,
    InvertedBottleneckSpec,
    LayerSpec,
    TuckerSpec,
)
from mobiledets_tf.architecture.summary import detector_ops, madds

# (filters, layers, stride of the first), expansion 6: table 2 of arXiv 1801.04381.
_MOBILENET_V2 = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


def mobilenet_v2(multiplier: float = 1.0) -> Architecture:
    """MobileNetV2 as backbone: C4 is its last map of stride 16, C5 the one of 320 channels."""
    blocks = [(InvertedBottleneckNoExpansionSpec(16),)]
    for filters, layers, strides in _MOBILENET_V2:
        first = InvertedBottleneckSpec(filters, 3, strides, False, 6)
        blocks.append((first, *[InvertedBottleneckSpec(filters, 3, 1, True, 6)] * (layers - 1)))
    network = Architecture(f"mobilenet_v2 x{multiplier:g}", ConvSpec(32, strides=2), tuple(blocks))
    return network.scaled(multiplier)


def ibn_twin(network: Architecture, image_size: int | tuple[int, int] = 320) -> Architecture:
    """The same skeleton with every fused and Tucker layer made an inverted bottleneck (expansion 8,
    and 4 where the layer had 4), widths scaled to the nearest number of multiply-adds."""
    blocks = tuple(tuple(_as_ibn(layer) for layer in block) for block in network.blocks)
    plain = dataclasses.replace(network, name=f"{network.name} as IBN", blocks=blocks, origin=None)
    target = _madds(network, image_size)
    candidates = [_widened(plain, step / 40) for step in range(20, 161)]
    return min(candidates, key=lambda candidate: abs(_madds(candidate, image_size) - target))


def _as_ibn(layer: LayerSpec) -> LayerSpec:
    if not isinstance(layer, (FusedInvertedBottleneckSpec, TuckerSpec)):
        return layer
    expansion = getattr(layer, "expansion", 8)
    return InvertedBottleneckSpec(layer.filters, layer.kernel_size, layer.strides, layer.residual, expansion)


def _widened(network: Architecture, multiplier: float) -> Architecture:
    """Scales the backbone alone; the head's levels keep their widths."""
    return dataclasses.replace(network.scaled(multiplier), extra_filters=network.extra_filters)


def _madds(network: Architecture, image_size) -> int:
    return madds(detector_ops(network, 90, image_hw(image_size)))
