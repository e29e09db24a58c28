"""The three nested spaces of MobileDets: IBN, +Fused, +Tucker.

Sources: widths are base widths times {0.5 .. 2.0} rounded to multiples of 8, kernels {3, 5},
expansions {4, 8}, Tucker ratios {0.25, 0.75}; the skeleton (strides, layers per block) is that
of all released networks. The paper's text for these sets was not re-read; every released cpu,
edgetpu and dsp network lies on this grid, which a test shows.

Sizes counted by the traversal at depth multiplier 1, where widths that coincide after rounding
count once: ibn 10^20.8, ibn_fused 10^26.4, ibn_fused_tucker 10^33.1.
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
    """One op position; `op` chooses a `LayerOption`."""

    op: OneOf
    strides: int
    residual: bool


@dataclasses.dataclass(frozen=True)
class SearchBlock:
    """Layers that share one width; `filters` chooses it."""

    filters: OneOf
    layers: tuple[SearchLayer, ...]


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """A space of detectors.

    Attributes:
      name: one of `SPACES`.
      kernel_sizes, depth_multiplier: the options it was made with.
      stem_filters: width of the stem.
      blocks: seven blocks.
      activation, se_ratio, extra_filters: fixed parts, as in `Architecture`.
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
        """16 hex digits over everything above."""
        return content_hash(self)

    @property
    def size(self) -> int:
        """How many networks (counted as selections) it holds."""
        return size(self)

    @property
    def decisions(self) -> tuple[tuple[str, OneOf], ...]:
        """(path, node) of every decision, in the order of a decision vector."""
        return one_ofs(self)

    @property
    def anchors_per_location(self) -> tuple[int, ...]:
        """Anchors of each of the six maps."""
        return ANCHORS_PER_LOCATION

    def options(self) -> dict:
        """Arguments of `get_space` that give this space again, JSON-ready; see `stored_space`."""
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
    """Makes a space.

    Args:
      name: `ibn`, `ibn_fused` or `ibn_fused_tucker`.
      kernel_sizes: (3,) is the adaptation for DSPs.
      depth_multiplier: scales every width before rounding to multiples of 8.
      activation, se_ratio: `hard_swish` and 0.25 give the space of MobileDet-CPU.

    Raises:
      InputError: unknown name, activation, kernel or multiplier out of range.
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
    """The space of a file: `SearchSpace.options()` with the `hash` of its content.

    Raises:
      InputError: it is unknown here, or its content changed; both hashes are named.
      KeyError, TypeError, ValueError: entries are missing or malformed.
    """
    options = dict(stored)
    expected, kernels = options.pop("hash"), tuple(options.pop("kernel_sizes"))
    space = get_space(kernel_sizes=kernels, **options)
    if space.hash != expected:
        raise InputError(
            f"search space {space.name!r} has hash {expected!r} in the file and {space.hash!r} here"
        )
    return space


def _widths(base: int, depth_multiplier: float) -> OneOf:
    # Rounded once for the grid and once for the multiplier, as scaling a decoded network does.
    grid = (scale_filters(base, m) for m in MULTIPLIERS)
    return OneOf(tuple(sorted({scale_filters(f, depth_multiplier) for f in grid})), "filters")


def _layers(
    name: str, block: int, strides: int, layers: int, kernels: tuple[int, ...]
) -> tuple[SearchLayer, ...]:
    first = _first_block_options(name, kernels) if block == 0 else _options(name, kernels)
    rest = (*_options(name, kernels), options.SKIP)
    # The first layer of a block changes width or stride and is never residual, not even
    # where it changes neither (TF1).
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
    """CPU and DSP took a separable layer here, EdgeTPU and GPU a Tucker one."""
    found = options.separable(kernels)
    return found + options.tuckers(kernels, TUCKER_RATIOS) if name == "ibn_fused_tucker" else found
