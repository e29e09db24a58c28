"""Lowers layers to sequences of plain convolutions.

This is the only definition of what a block computes. The counts, the Keras layers, the flat
detector and the shared weights of the search are all derived from it.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from mobiledets_tf.architecture import specs
from mobiledets_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class ConvOp:
    """One convolution (SAME padding) with its normalisation or bias and its activation.

    Attributes:
      name: role of the convolution in its layer (`expand`, `depthwise`, `project`, ...).
      kernel_size, strides: side of the kernel and stride, in pixels.
      in_channels, out_channels: widths; they are equal for a depthwise convolution.
      depthwise: whether the convolution is depthwise (with multiplier 1) rather than full.
      activation: name of the activation, which is applied last, or None.
      batch_norm: whether batch normalisation (BN) with scale and offset follows; otherwise a bias does.
    """

    name: str
    kernel_size: int
    strides: int
    in_channels: int
    out_channels: int
    depthwise: bool = False
    activation: str | None = None
    batch_norm: bool = True

    @property
    def kernel_params(self) -> int:
        """Number of weights of the kernel."""
        outputs = 1 if self.depthwise else self.out_channels
        return self.kernel_size**2 * self.in_channels * outputs

    @property
    def trainable_params(self) -> int:
        """Number of trainable parameters."""
        return self.kernel_params + self.out_channels * (2 if self.batch_norm else 1)

    @property
    def params(self) -> int:
        """Number of parameters including the two moving statistics of BN, as in published counts."""
        return self.kernel_params + self.out_channels * (4 if self.batch_norm else 1)

    def madds(self, out_height: int, out_width: int) -> int:
        """Multiply-adds."""
        return out_height * out_width * self.kernel_params


@dataclasses.dataclass(frozen=True)
class SqueezeExciteOp:
    """Squeeze-excite: mean over the map -> 1x1 (bias) -> activation -> 1x1 (bias) -> sigmoid -> multiply.

    Attributes:
      channels: width of the map that is rescaled.
      hidden: width between the two 1x1 convolutions.
      activation: name of the activation between the two.
      name: role of the operation in its layer.
    """

    channels: int
    hidden: int
    activation: str
    name: str = "se"

    # Squeeze-excite keeps the size of the map.
    strides = 1

    @property
    def in_channels(self) -> int:
        """Width of the input map."""
        return self.channels

    @property
    def out_channels(self) -> int:
        """Width of the output map."""
        return self.channels

    @property
    def trainable_params(self) -> int:
        """Number of trainable parameters."""
        return 2 * self.channels * self.hidden + self.hidden + self.channels

    @property
    def params(self) -> int:
        """Number of parameters."""
        return self.trainable_params

    def madds(self, out_height: int, out_width: int) -> int:
        """Multiply-adds of the two 1x1 convolutions, which act on one pixel, without mean and product."""
        return 2 * self.channels * self.hidden


Op = ConvOp | SqueezeExciteOp


@functools.singledispatch
def lower(
    layer: specs.LayerSpec, in_channels: int, activation: str, se_ratio: float | None
) -> tuple[Op, ...]:
    """Returns the operations of a layer, in order, without the residual addition.

    Args:
      layer: an instance of a concrete layer spec.
      in_channels: width of the layer's input.
      activation: name of the activation inside the layer; the last 1x1 convolution has none.
      se_ratio: ratio of squeeze-excite after the depthwise convolution, or None for no squeeze-excite.
    """
    raise InputError(f"no lowering for {type(layer).__name__}")


@lower.register
def _(layer: specs.ConvSpec, in_channels: int, activation: str, se_ratio: float | None) -> tuple[Op, ...]:
    return (ConvOp("conv", layer.kernel_size, layer.strides, in_channels, layer.filters, False, activation),)


@lower.register
def _(
    layer: specs.InvertedBottleneckNoExpansionSpec, in_channels: int, activation: str, se_ratio: float | None
) -> tuple[Op, ...]:
    return (
        *_depthwise(layer, in_channels, activation, se_ratio, se_base=in_channels),
        ConvOp("project", 1, 1, in_channels, layer.filters),
    )


@lower.register
def _(
    layer: specs.InvertedBottleneckSpec, in_channels: int, activation: str, se_ratio: float | None
) -> tuple[Op, ...]:
    expanded = layer.expansion * in_channels
    return (
        ConvOp("expand", 1, 1, in_channels, expanded, False, activation),
        *_depthwise(layer, expanded, activation, se_ratio, se_base=expanded),
        ConvOp("project", 1, 1, expanded, layer.filters),
    )


@lower.register
def _(
    layer: specs.FusedInvertedBottleneckSpec, in_channels: int, activation: str, se_ratio: float | None
) -> tuple[Op, ...]:
    expanded = layer.expansion * in_channels
    return (
        ConvOp("expand", layer.kernel_size, layer.strides, in_channels, expanded, False, activation),
        ConvOp("project", 1, 1, expanded, layer.filters),
    )


@lower.register
def _(layer: specs.TuckerSpec, in_channels: int, activation: str, se_ratio: float | None) -> tuple[Op, ...]:
    in_rank, out_rank = tucker_ranks(layer, in_channels)
    return (
        ConvOp("compress", 1, 1, in_channels, in_rank, False, activation),
        ConvOp("conv", layer.kernel_size, layer.strides, in_rank, out_rank, False, activation),
        ConvOp("project", 1, 1, out_rank, layer.filters),
    )


def tucker_ranks(layer: specs.TuckerSpec, in_channels: int) -> tuple[int, int]:
    """Returns the two inner widths of a Tucker layer, each rounded to a multiple of 8.

    The first is a fraction of the input width; the second is a fraction of the OUTPUT width.
    """
    return (
        specs.scale_filters(in_channels, layer.in_ratio),
        specs.scale_filters(layer.filters, layer.out_ratio),
    )


def _depthwise(
    layer: Any, channels: int, activation: str, se_ratio: float | None, se_base: int
) -> tuple[Op, ...]:
    depthwise = ConvOp("depthwise", layer.kernel_size, layer.strides, channels, channels, True, activation)
    if se_ratio is None:
        return (depthwise,)
    return depthwise, SqueezeExciteOp(channels, specs.scale_filters(se_base, se_ratio), activation)


def lower_extra_level(in_channels: int, filters: int) -> tuple[ConvOp, ...]:
    """Returns the operations of an extra SSD level: 1x1 to half its width -> 3x3 depthwise, stride 2 -> 1x1.

    Source: `feature_map_generators.py` of the TF1 API with use_depthwise.
    """
    half = filters // 2
    return (
        ConvOp("reduce", 1, 1, in_channels, half, False, "relu6"),
        ConvOp("depthwise", 3, 2, half, half, True, "relu6"),
        ConvOp("conv", 1, 1, half, filters, False, "relu6"),
    )


def lower_predictor(in_channels: int, outputs: int) -> tuple[ConvOp, ...]:
    """Returns the operations of an SSDLite predictor: 3x3 depthwise (BN, ReLU6) -> 1x1 with bias."""
    return (
        ConvOp("depthwise", 3, 1, in_channels, in_channels, True, "relu6"),
        ConvOp("conv", 1, 1, in_channels, outputs, batch_norm=False),
    )


@dataclasses.dataclass(frozen=True)
class PlacedOp:
    """An operation at its place in a detector.

    Attributes:
      layer_name: name of the layer that the operation belongs to.
      op: the operation.
      in_size, out_size: (height, width) of its input and output map.
    """

    layer_name: str
    op: Op
    in_size: tuple[int, int]
    out_size: tuple[int, int]

    @property
    def madds(self) -> int:
        """Multiply-adds."""
        return self.op.madds(*self.out_size)


def place(
    layer_name: str, ops: tuple[Op, ...], size: tuple[int, int]
) -> tuple[list[PlacedOp], tuple[int, int]]:
    """Computes the map sizes of a sequence of operations.

    Args:
      layer_name: name of the layer that the operations belong to.
      ops: the operations, in order.
      size: (height, width) of the first input.

    Returns:
      The operations with their sizes, and (height, width) of the last output.
    """
    placed = []
    for op in ops:
        out = specs.strided(size, op.strides)
        placed.append(PlacedOp(layer_name, op, size, out))
        size = out
    return placed, size


def backbone_ops(architecture: specs.Architecture, image_size: tuple[int, int]) -> Iterator[PlacedOp]:
    """Yields all operations of the backbone, in order."""
    channels, size = 3, image_size
    for name, layer in architecture.named_layers():
        se_ratio = None if layer is architecture.stem else architecture.se_ratio
        placed, size = place(name, lower(layer, channels, architecture.activation, se_ratio), size)
        yield from placed
        channels = layer.filters
