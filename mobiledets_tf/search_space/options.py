"""Options of a layer in a search space, before its width is known."""

import dataclasses

from mobiledets_tf.architecture import specs


@dataclasses.dataclass(frozen=True)
class LayerOption:
    """A kind of layer with its settings; settings that the kind does not have are None.

    Attributes:
      op: `dwsep_no_expansion`, `ibn`, `fused` or `tucker`; `SKIP` has `skip`.
      kernel_size: kernel size of the spatial convolution.
      expansion: expansion ratio of `ibn` and `fused`.
      in_ratio, out_ratio: compression ratios of `tucker`.
    """

    op: str
    kernel_size: int
    expansion: int | None = None
    in_ratio: float | None = None
    out_ratio: float | None = None

    def to_spec(self, filters: int, strides: int, residual: bool) -> specs.LayerSpec:
        """Returns the layer spec for a width, stride and residual connection."""
        extra = {name: getattr(self, name) for name in ("expansion", "in_ratio", "out_ratio")}
        given = {name: value for name, value in extra.items() if value is not None}
        return specs.LAYER_SPECS[self.op](filters, self.kernel_size, strides, residual, **given)

    @classmethod
    def of(cls, layer: specs.LayerSpec) -> "LayerOption":
        """Returns the option that a layer spec is an instance of."""
        extra = {name: getattr(layer, name, None) for name in ("expansion", "in_ratio", "out_ratio")}
        return cls(layer.op, layer.kernel_size, **extra)


# The option to skip a residual layer.
SKIP = LayerOption("skip", 0)


def separable(kernels: tuple[int, ...]) -> tuple[LayerOption, ...]:
    """Returns a depthwise-separable convolution of each kernel size."""
    return tuple(LayerOption("dwsep_no_expansion", k) for k in kernels)


def bottlenecks(op: str, kernels: tuple[int, ...], expansions: tuple[int, ...]) -> tuple[LayerOption, ...]:
    """Returns an inverted bottleneck, or a fused one, of each kernel size and expansion."""
    return tuple(LayerOption(op, k, e) for k in kernels for e in expansions)


def tuckers(kernels: tuple[int, ...], ratios: tuple[float, ...]) -> tuple[LayerOption, ...]:
    """Returns a Tucker convolution of each kernel size and each pair of ratios."""
    return tuple(
        LayerOption("tucker", k, in_ratio=i, out_ratio=o) for k in kernels for i in ratios for o in ratios
    )
