"""The SSDLite head as data: six feature maps, extra levels, predictors.

Source: TF1 sample configs `ssdlite_mobiledet_*_320x320_coco_sync_4x4.config`.
"""

import dataclasses
import itertools

from mobiledets_tf.architecture import specs
from mobiledets_tf.architecture.ops import PlacedOp, lower_extra_level, lower_predictor, place
from mobiledets_tf.errors import InputError

ANCHORS_PER_LOCATION = (3, 6, 6, 6, 6, 6)
BOX_CODE_SIZE = 4
# Of the suppression in training, evaluation and, unless said otherwise, in files.
IOU_THRESHOLD = 0.6
SCORE_THRESHOLD = 1e-8
MAX_DETECTIONS = 100
# C5 must still be 3x3, or the extra levels have nothing left to halve.
MIN_C5_SIDE = 3
MIN_IMAGE_SIDE = 32 * (MIN_C5_SIDE - 1) + 1
MAX_IMAGE_SIDE = 4096
MAX_CLASSES = 10000
MAX_ANCHORS_PER_LOCATION = 100


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """A map the predictors read. `size` is (height, width)."""

    name: str
    size: tuple[int, int]
    channels: int


def image_hw(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image size given as one side or as a pair.

    Raises:
      InputError: a side is too small for six maps, or not an integer in range.
    """
    sides = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(sides) != 2:
        raise InputError(
            f"image size {specs.shown(sides)} has {len(sides)} sides; allowed: one side, or (height, width)"
        )
    for side in sides:
        if not specs.is_integer(side) or not MIN_IMAGE_SIDE <= side <= MAX_IMAGE_SIDE:
            raise InputError(
                f"image size {specs.shown(side)} does not fit six feature maps; allowed: {MIN_IMAGE_SIDE} to "
                f"{MAX_IMAGE_SIDE} pixels a side"
            )
    return sides


def check_num_classes(num_classes: int) -> None:
    """Raises InputError unless the class count (background excluded) is in range."""
    if not specs.is_integer(num_classes) or not 1 <= num_classes <= MAX_CLASSES:
        raise InputError(f"number of classes is {specs.shown(num_classes)}; allowed: 1 to {MAX_CLASSES}")


def check_anchors_per_location(anchors_per_location: tuple[int, ...]) -> None:
    """Raises InputError unless there is one count in range for each of the six maps."""
    counts = tuple(anchors_per_location)
    in_range = all(specs.is_integer(n) and 1 <= n <= MAX_ANCHORS_PER_LOCATION for n in counts)
    if len(counts) != len(ANCHORS_PER_LOCATION) or not in_range:
        raise InputError(
            f"anchors per location are {specs.shown(counts)}; allowed: {len(ANCHORS_PER_LOCATION)} integers "
            f"from 1 to {MAX_ANCHORS_PER_LOCATION}"
        )


def feature_maps(
    architecture: specs.Architecture, image_size: int | tuple[int, int]
) -> tuple[FeatureMap, ...]:
    """C4, C5 and the four extra levels, with their sizes."""
    size = image_hw(image_size)
    maps = []
    for name, stride in specs.ENDPOINT_STRIDES.items():
        channels = architecture.blocks[specs.ENDPOINTS[name]][-1].filters
        maps.append(FeatureMap(name, tuple(-(-side // stride) for side in size), channels))
    size = maps[-1].size
    for index, filters in enumerate(architecture.extra_filters, 1):
        size = tuple(-(-side // 2) for side in size)
        maps.append(FeatureMap(f"extra{index}", size, filters))
    return tuple(maps)


def head_ops(
    architecture: specs.Architecture,
    num_classes: int,
    image_size: int | tuple[int, int],
    anchors_per_location: tuple[int, ...] = ANCHORS_PER_LOCATION,
) -> list[PlacedOp]:
    """All operations of extra levels and predictors, in the order the model has them."""
    check_num_classes(num_classes)
    check_anchors_per_location(anchors_per_location)
    maps = feature_maps(architecture, image_size)
    ops = []
    for before, level in itertools.pairwise(maps[1:]):
        ops += place(level.name, lower_extra_level(before.channels, level.channels), before.size)[0]
    for index, (level, anchors) in enumerate(zip(maps, anchors_per_location, strict=True)):
        for task, outputs in (("box", BOX_CODE_SIZE), ("class", num_classes + 1)):
            predictor = lower_predictor(level.channels, anchors * outputs)
            ops += place(f"predictor{index}_{task}", predictor, level.size)[0]
    return ops


def num_anchors(
    architecture: specs.Architecture,
    image_size: int | tuple[int, int],
    anchors_per_location: tuple[int, ...] = ANCHORS_PER_LOCATION,
) -> int:
    """Anchors of all six maps; 2034 at 320x320."""
    check_anchors_per_location(anchors_per_location)
    maps = feature_maps(architecture, image_size)
    return sum(m.size[0] * m.size[1] * n for m, n in zip(maps, anchors_per_location, strict=True))
