"""Specifications of layers and networks as frozen dataclasses, without TensorFlow.

A MobileDet consists of a stem, seven blocks of layers and an SSDLite head that reads the
outputs of block 5 (C4, stride 16) and block 7 (C5, stride 32). Sources: MobileDets (arXiv
2004.14525) and the TF1 feature extractor `ssd_mobiledet_feature_extractor.py`.
"""

import dataclasses
import reprlib
from typing import Any, ClassVar, TypeVar

from mobiledets_tf.errors import InputError, unknown_name

ACTIVATIONS = ("relu6", "hard_swish")
# Endpoint name -> index of the block whose last layer outputs it.
ENDPOINTS = {"C1": 0, "C2": 1, "C3": 2, "C4": 4, "C5": 6}
ENDPOINT_STRIDES = {"C4": 16, "C5": 32}
NUM_BLOCKS = 7
# These limits are far above every released network; they keep a hostile file from exhausting the memory.
MAX_FILTERS = 8192
MAX_LAYERS_PER_BLOCK = 64


def scale_filters(filters: int, multiplier: float, base: int = 8) -> int:
    """Returns `filters * multiplier` rounded half up to a multiple of `base`, but at least `base`.

    Source: `_scale_filters` of the TF1 extractor and `scale_filters` of TuNAS.
    """
    return max(base, int(filters * multiplier / base + 0.5) * base)


def strided(size: tuple[int, int], strides: int) -> tuple[int, int]:
    """Returns the (height, width) of a map after an operation with padding `same` and these strides."""
    height, width = size
    return -(-height // strides), -(-width // strides)


def shown(value: Any) -> str:
    """Returns the `repr` of any value, shortened to one line for a message."""
    try:
        text = reprlib.repr(value)  # reprlib stops at six levels of nesting, so it cannot exhaust the stack.
    except ValueError:  # Python refuses to print integers of more than 4300 digits.
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 60 else text[:57] + "..."


def is_integer(value: Any) -> bool:
    """Returns whether a value is an int; JSON's true and 1.0 are not, although both equal 1."""
    return isinstance(value, int) and not isinstance(value, bool)


def _require(condition: bool, spec: Any, field: str, allowed: str) -> None:
    if not condition:
        raise InputError(
            f"{type(spec).__name__}: {field} is {shown(getattr(spec, field))}; allowed: {allowed}"
        )


def _require_one_of(spec: Any, field: str, *allowed: int) -> None:
    value = getattr(spec, field)
    words = f"{', '.join(map(str, allowed[:-1]))} or {allowed[-1]}"
    _require(is_integer(value) and value in allowed, spec, field, words)


def _require_integer(spec: Any, field: str, low: int, high: int) -> None:
    value = getattr(spec, field)
    _require(is_integer(value) and low <= value <= high, spec, field, f"an integer from {low} to {high}")


def _require_ratio(spec: Any, field: str) -> None:
    value = getattr(spec, field)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    _require(is_number and 0 < value <= 1, spec, field, "a number above 0 and at most 1")


_Spec = TypeVar("_Spec", bound="LayerSpec")


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """Fields common to all layers; only the subclasses are instantiated.

    Attributes:
      filters: number of output channels.
      kernel_size: side of the spatial kernel, in pixels.
      strides: stride of the spatial convolution, 1 or 2.
      residual: whether the input is added to the output.
    """

    filters: int
    kernel_size: int = 3
    strides: int = 1
    residual: bool = False

    op: ClassVar[str]

    def __post_init__(self) -> None:
        _require_integer(self, "filters", 1, MAX_FILTERS)
        _require_one_of(self, "kernel_size", 1, 3, 5, 7)
        _require_one_of(self, "strides", 1, 2)
        _require(isinstance(self.residual, bool), self, "residual", "true or false")
        if self.residual and self.strides != 1:
            raise InputError(
                f"{type(self).__name__}: a residual layer needs strides 1; given: {self.strides}"
            )

    def scaled(self: _Spec, multiplier: float) -> _Spec:
        """Returns the same layer with its output width scaled."""
        return dataclasses.replace(self, filters=scale_filters(self.filters, multiplier))


@dataclasses.dataclass(frozen=True)
class ConvSpec(LayerSpec):
    """A full convolution with batch normalisation and activation, used as the stem."""

    op: ClassVar[str] = "conv"


@dataclasses.dataclass(frozen=True)
class InvertedBottleneckNoExpansionSpec(LayerSpec):
    """Inverted bottleneck without expansion: kxk depthwise -> (SE) -> 1x1 linear projection."""

    op: ClassVar[str] = "dwsep_no_expansion"


@dataclasses.dataclass(frozen=True)
class InvertedBottleneckSpec(LayerSpec):
    """Inverted bottleneck (IBN): 1x1 expansion -> kxk depthwise -> (SE) -> 1x1 linear projection.

    Attributes:
      expansion: expanded width as a multiple of the input width.
    """

    expansion: int = 4

    op: ClassVar[str] = "ibn"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_integer(self, "expansion", 2, 64)


@dataclasses.dataclass(frozen=True)
class FusedInvertedBottleneckSpec(LayerSpec):
    """Fused inverted bottleneck: kxk full convolution (expansion) -> 1x1 linear projection.

    Attributes:
      expansion: expanded width as a multiple of the input width.
    """

    expansion: int = 4

    op: ClassVar[str] = "fused"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_integer(self, "expansion", 2, 64)


@dataclasses.dataclass(frozen=True)
class TuckerSpec(LayerSpec):
    """Tucker convolution: 1x1 compression -> kxk full convolution -> 1x1 linear projection.

    Both inner widths are rounded half up to a multiple of 8.

    Attributes:
      in_ratio: width after the compression as a fraction of the input width.
      out_ratio: width after the full convolution as a fraction of the output width.
    """

    in_ratio: float = 0.25
    out_ratio: float = 0.75

    op: ClassVar[str] = "tucker"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_ratio(self, "in_ratio")
        _require_ratio(self, "out_ratio")


LAYER_SPECS: dict[str, type[LayerSpec]] = {
    spec.op: spec
    for spec in (
        ConvSpec,
        InvertedBottleneckNoExpansionSpec,
        InvertedBottleneckSpec,
        FusedInvertedBottleneckSpec,
        TuckerSpec,
    )
}


@dataclasses.dataclass(frozen=True)
class Origin:
    """The search space and decisions that a searched network comes from.

    Attributes:
      search_space: name of the search space.
      space_hash: hash of the space's content; see `search_space.SearchSpace.hash`.
      decisions: one option index per decision, in traversal order.
    """

    search_space: str
    space_hash: str
    decisions: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A detector network, independent of class count and image size.

    Attributes:
      name: name in reports and file names.
      stem: the first convolution.
      blocks: seven blocks, each a tuple of layers.
      activation: `relu6` or `hard_swish`, used by the stem and inside every layer.
      se_ratio: ratio of squeeze-excite after each depthwise convolution, or None for no squeeze-excite.
      extra_filters: output widths of the four extra SSD levels.
      origin: search space and decisions of a searched network, or None.
    """

    name: str
    stem: ConvSpec
    blocks: tuple[tuple[LayerSpec, ...], ...]
    activation: str = "relu6"
    se_ratio: float | None = None
    extra_filters: tuple[int, ...] = (512, 256, 256, 128)
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            given = self.activation[:60] if isinstance(self.activation, str) else shown(self.activation)
            raise unknown_name("activation", given, ACTIVATIONS)
        if self.se_ratio is not None:
            _require_ratio(self, "se_ratio")
        if len(self.blocks) != NUM_BLOCKS:
            raise InputError(
                f"architecture {self.name!r} has {len(self.blocks)} blocks; allowed: {NUM_BLOCKS}"
            )
        for index, block in enumerate(self.blocks, 1):
            if not block:
                raise InputError(
                    f"block {index} of architecture {self.name!r} has no layer; allowed: at least 1"
                )
        _check_extra_filters(self)
        _check_residuals(self)
        _check_strides(self)

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """The stem and all layers of the blocks, in order."""
        return (self.stem, *(layer for block in self.blocks for layer in block))

    def named_layers(self) -> tuple[tuple[str, LayerSpec], ...]:
        """Returns (name, spec) of each layer in order.

        The names are `stem` and `block<b>_layer<l>`, where b and l count from 1.
        """
        named: list[tuple[str, LayerSpec]] = [("stem", self.stem)]
        for b, block in enumerate(self.blocks, 1):
            named += [(f"block{b}_layer{i}", layer) for i, layer in enumerate(block, 1)]
        return tuple(named)

    def endpoints(self) -> dict[str, str]:
        """Returns a mapping from endpoint name (C1 to C5) to the name of the layer whose output it is."""
        return {name: f"block{index + 1}_layer{len(self.blocks[index])}" for name, index in ENDPOINTS.items()}

    def scaled(self, multiplier: float) -> "Architecture":
        """Returns the network with all widths multiplied and rounded half up to a multiple of 8.

        Inner widths are derived from the scaled widths. A scaled network is no longer part of
        its search space, so it has no origin.

        Raises:
          InputError: the multiplier is not a number above 0 and at most 16.
        """
        if not 0 < multiplier <= 16:
            raise InputError(f"depth multiplier is {multiplier!r}; allowed: above 0 and at most 16")
        if multiplier == 1:
            return self
        return dataclasses.replace(
            self,
            stem=self.stem.scaled(multiplier),
            blocks=tuple(tuple(layer.scaled(multiplier) for layer in block) for block in self.blocks),
            extra_filters=tuple(scale_filters(f, multiplier) for f in self.extra_filters),
            origin=None,
        )


def _check_extra_filters(architecture: Architecture) -> None:
    filters = architecture.extra_filters
    valid = len(filters) == 4 and all(is_integer(f) and 2 <= f <= MAX_FILTERS for f in filters)
    _require(valid, architecture, "extra_filters", f"four integers from 2 to {MAX_FILTERS}")


def _check_residuals(architecture: Architecture) -> None:
    channels = architecture.stem.filters
    if architecture.stem.residual:
        raise InputError("stem: residual is true; allowed: false, because its input is an image")
    for name, layer in architecture.named_layers()[1:]:
        if layer.residual and layer.filters != channels:
            raise InputError(
                f"{name}: a residual layer needs equal widths; given: {channels} in and {layer.filters} out"
            )
        channels = layer.filters


def _check_strides(architecture: Architecture) -> None:
    for endpoint, allowed in ENDPOINT_STRIDES.items():
        stride = architecture.stem.strides
        for block in architecture.blocks[: ENDPOINTS[endpoint] + 1]:
            for layer in block:
                stride *= layer.strides
        if stride != allowed:
            raise InputError(f"{endpoint} has stride {stride}; allowed: {allowed}")
