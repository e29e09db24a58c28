"""The three nested spaces of MobileDets: IBN, +Fused, +Tucker.

Sources: widths are base widths times {0.5 .. 2.0} rounded to multiples of 8, kernels {3, 5},
expansions {4, 8}, Tucker ratios {0.25, 0.75}; the skeleton (strides, layers per block) is that
of all released networks. These sets were not checked against the text of the paper, but a test
shows that every released cpu, edgetpu and dsp network lies on this grid.

The numbers of networks at depth multiplier 1, where widths that coincide after rounding count
once, are 10^20.8 for ibn, 10^26.4 for ibn_fused and 10^33.1 for ibn_fused_tucker.
"""

import dataclasses

from mobiledets_tf.architecture import ANCHORS_PER_LOCATION, scale_filters, specs
from mobiledets_tf.errors import InputError, unknown_name
from mobiledets_tf.search_space import options
from mobiledets_tf.search_space.one_of import OneOf, content_hash, one_ofs, size

MULTIPLIERS = (0.5, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0)
EXPANSIONS = (4, 8)
TUCKER_RATIOS = (0.25, 0.75)
STEM_FILTERS = 32
# (base filters, strides, layers) of blocks 1 to 7.
BLOCKS = ((16, 1, 1), (32, 2, 4), (48, 2, 4), (96, 2, 4), (96, 1, 4), (160, 2, 4), (192, 1, 1))
EXTRA_FILTERS = (512, 256, 256, 128)
SPACES = ("ibn", "ibn_fused", "ibn_fused_tucker")


@dataclasses.dataclass(frozen=True)
class SearchLayer:
    """One op position; `op` is the choice between `LayerOption`s."""

    op: OneOf
    strides: int
    residual: bool


@dataclasses.dataclass(frozen=True)
class SearchBlock:
    """Layers that share one output width; `filters` is the choice of that width."""

    filters: OneOf
    layers: tuple[SearchLayer, ...]


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """A search space of detectors.

    Attributes:
      name: one of `SPACES`.
      kernel_sizes, depth_multiplier: the arguments of `get_space` that the space was made with.
      stem_filters: choice of the stem's width.
      blocks: the seven blocks.
      activation, se_ratio, extra_filters: parts that are the same in all networks, as in `Architecture`.
    """

    name: str
    kernel_sizes: tuple[int, ...]
    depth_multiplier: float
    stem_filters: OneOf
    blocks: tuple[SearchBlock, ...]
    activation: str
    se_ratio: float | None
    extra_filters: tuple[int, ...]

    @property
    def hash(self) -> str:
        """Hash of the space's content, 16 hex digits."""
        return content_hash(self)

    @property
    def size(self) -> int:
        """Number of networks in the space, counted as selections of its choices."""
        return size(self)

    @property
    def decisions(self) -> tuple[tuple[str, OneOf], ...]:
        """The (path, node) pair of every decision, in the order of a decision vector."""
        return one_ofs(self)

    @property
    def anchors_per_location(self) -> tuple[int, ...]:
        """Number of anchors per location on each of the six feature maps."""
        return ANCHORS_PER_LOCATION

    def options(self) -> dict:
        """Returns the JSON-ready arguments of `get_space` that recreate this space; see `stored_space`."""
        return {
            "name": self.name,
            "kernel_sizes": list(self.kernel_sizes),
            "depth_multiplier": self.depth_multiplier,
            "activation": self.activation,
            "se_ratio": self.se_ratio,
        }


def get_space(
    name: str,
    kernel_sizes: tuple[int, ...] = (3, 5),
    depth_multiplier: float = 1.0,
    activation: str = "relu6",
    se_ratio: float | None = None,
) -> SearchSpace:
    """Makes a search space.

    Args:
      name: `ibn`, `ibn_fused` or `ibn_fused_tucker`.
      kernel_sizes: kernel sizes to choose from; (3,) adapts the space to DSPs.
      depth_multiplier: multiplier of every width, applied before rounding to multiples of 8.
      activation, se_ratio: activation and squeeze-excite ratio of all layers; `hard_swish` and 0.25
        make the space of MobileDet-CPU.

    Raises:
      InputError: the name or activation is unknown, or a kernel size or the multiplier is out of range.
    """
    if name not in SPACES:
        raise unknown_name("search space", name, SPACES)
    kernels = tuple(kernel_sizes)
    if not kernels or not set(kernels) <= {3, 5} or len(set(kernels)) != len(kernels):
        raise InputError(f"kernel sizes are {kernels}; allowed: 3, 5 or both")
    if not 0 < depth_multiplier <= 16:
        raise InputError(f"depth multiplier is {depth_multiplier!r}; allowed: above 0 and at most 16")
    if activation not in specs.ACTIVATIONS:
        raise unknown_name("activation", activation, specs.ACTIVATIONS)
    return SearchSpace(
        name=name,
        kernel_sizes=kernels,
        depth_multiplier=float(depth_multiplier),
        stem_filters=_widths(STEM_FILTERS, depth_multiplier),
        blocks=tuple(
            SearchBlock(_widths(base, depth_multiplier), _layers(name, index, strides, layers, kernels))
            for index, (base, strides, layers) in enumerate(BLOCKS)
        ),
        activation=activation,
        se_ratio=se_ratio,
        extra_filters=tuple(scale_filters(f, depth_multiplier) for f in EXTRA_FILTERS),
    )


def stored_space(stored: dict) -> SearchSpace:
    """Recreates the search space described in a file.

    Args:
      stored: `SearchSpace.options()` together with the `hash` of the space.

    Raises:
      InputError: this version does not know the space, or its content differs; the message shows both
        hashes.
      KeyError, TypeError, ValueError: entries are missing or malformed.
    """
    options = dict(stored)
    expected, kernels = options.pop("hash"), tuple(options.pop("kernel_sizes"))
    space = get_space(kernel_sizes=kernels, **options)
    if space.hash != expected:
        raise InputError(
            f"search space {space.name!r} has hash {expected!r} in the file and {space.hash!r} in this "
            "version"
        )
    return space


def _widths(base: int, depth_multiplier: float) -> OneOf:
    # Widths are rounded once for the grid and once for the multiplier, as when a decoded network is scaled.
    grid = (scale_filters(base, m) for m in MULTIPLIERS)
    return OneOf(tuple(sorted({scale_filters(f, depth_multiplier) for f in grid})), "filters")


def _layers(
    name: str, block: int, strides: int, layers: int, kernels: tuple[int, ...]
) -> tuple[SearchLayer, ...]:
    first = _first_block_options(name, kernels) if block == 0 else _options(name, kernels)
    rest = (*_options(name, kernels), options.SKIP)
    # The first layer of a block changes width or stride and is never residual, not even
    # if it changes neither (as in the TF1 extractor).
    return (
        SearchLayer(OneOf(first, "op"), strides, False),
        *(SearchLayer(OneOf(rest, "op"), 1, True) for _ in range(layers - 1)),
    )


def _options(name: str, kernels: tuple[int, ...]) -> tuple[options.LayerOption, ...]:
    found = options.bottlenecks("ibn", kernels, EXPANSIONS)
    if name != "ibn":
        found += options.bottlenecks("fused", kernels, EXPANSIONS)
    if name == "ibn_fused_tucker":
        found += options.tuckers(kernels, TUCKER_RATIOS)
    return found


def _first_block_options(name: str, kernels: tuple[int, ...]) -> tuple[options.LayerOption, ...]:
    """Returns the options of block 1: CPU and DSP use a separable layer, EdgeTPU and GPU a Tucker one."""
    found = options.separable(kernels)
    return found + options.tuckers(kernels, TUCKER_RATIOS) if name == "ibn_fused_tucker" else found
