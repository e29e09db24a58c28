"""Baseline networks: MobileNetV2 with the SSDLite head, and counterparts made only of IBN layers."""

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

# (filters, number of layers, stride of the first layer); the expansion is 6. Source: table 2 of
# MobileNetV2 (arXiv 1801.04381).
_MOBILENET_V2 = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


def mobilenet_v2(multiplier: float = 1.0) -> Architecture:
    """Returns MobileNetV2 as a backbone with all widths scaled by `multiplier`.

    C4 is the last feature map with stride 16 and C5 is the one with 320 channels (before scaling).
    """
    blocks: list[tuple[LayerSpec, ...]] = [(InvertedBottleneckNoExpansionSpec(16),)]
    for filters, layers, strides in _MOBILENET_V2:
        first = InvertedBottleneckSpec(filters, 3, strides, False, 6)
        blocks.append((first, *[InvertedBottleneckSpec(filters, 3, 1, True, 6)] * (layers - 1)))
    network = Architecture(f"mobilenet_v2 x{multiplier:g}", ConvSpec(32, strides=2), tuple(blocks))
    return network.scaled(multiplier)


def ibn_twin(network: Architecture, image_size: int | tuple[int, int] = 320) -> Architecture:
    """Returns a network of equal structure and cost with inverted bottlenecks as its only block type.

    Every fused layer becomes an inverted bottleneck of the same expansion and every Tucker layer one
    of expansion 8. The backbone's widths are then scaled to bring the detector's multiply-adds as close
    as possible to those of the given network.

    Args:
      network: the network to imitate.
      image_size: side of the input or (height, width), in pixels, at which multiply-adds are compared.
    """
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
    """Scales the widths of the backbone only; the extra levels of the head keep theirs."""
    return dataclasses.replace(network.scaled(multiplier), extra_filters=network.extra_filters)


def _madds(network: Architecture, image_size: int | tuple[int, int]) -> int:
    return madds(detector_ops(network, 90, image_hw(image_size)))
