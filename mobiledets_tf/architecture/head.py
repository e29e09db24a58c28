"""The SSDLite head as data: six feature maps, four extra levels and the predictors.

Source: TF1 sample configs `ssdlite_mobiledet_*_320x320_coco_sync_4x4.config`.
"""

import dataclasses
import itertools

from mobiledets_tf.architecture import specs
from mobiledets_tf.architecture.ops import PlacedOp, lower_extra_level, lower_predictor, place
from mobiledets_tf.errors import InputError

ANCHORS_PER_LOCATION = (3, 6, 6, 6, 6, 6)
BOX_CODE_SIZE = 4
# Non-maximum suppression in training, evaluation and, unless configured otherwise, exported files.
IOU_THRESHOLD = 0.6
SCORE_THRESHOLD = 1e-8
MAX_DETECTIONS = 100
# C5 must be at least 3x3; otherwise the extra levels have nothing left to halve.
MIN_C5_SIDE = 3
MIN_IMAGE_SIDE = 32 * (MIN_C5_SIDE - 1) + 1
MAX_IMAGE_SIDE = 4096
MAX_CLASSES = 10000
MAX_ANCHORS_PER_LOCATION = 100


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """A feature map that the predictors read.

    Attributes:
      name: endpoint (`C4`, `C5`) or extra level (`extra1` to `extra4`).
      size: (height, width).
      channels: number of channels.
    """

    name: str
    size: tuple[int, int]
    channels: int


def image_hw(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns (height, width) of an image size, in pixels.

    Args:
      image_size: side of a square image, or (height, width).

    Raises:
      InputError: a side is not an integer, is too small for six feature maps, or is too large.
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
                f"{MAX_IMAGE_SIDE} pixels per side"
            )
    return sides


def check_num_classes(num_classes: int) -> None:
    """Raises InputError unless the number of classes (without the background) is in range."""
    if not specs.is_integer(num_classes) or not 1 <= num_classes <= MAX_CLASSES:
        raise InputError(f"number of classes is {specs.shown(num_classes)}; allowed: 1 to {MAX_CLASSES}")


def check_anchors_per_location(anchors_per_location: tuple[int, ...]) -> None:
    """Raises InputError unless there is one valid number of anchors for each of the six feature maps."""
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
    """Returns the feature maps C4, C5 and those of the four extra levels, with sizes and channels."""
    size = image_hw(image_size)
    maps = []
    for name, stride in specs.ENDPOINT_STRIDES.items():
        channels = architecture.blocks[specs.ENDPOINTS[name]][-1].filters
        maps.append(FeatureMap(name, specs.strided(size, stride), channels))
    size = maps[-1].size
    for index, filters in enumerate(architecture.extra_filters, 1):
        size = specs.strided(size, 2)
        maps.append(FeatureMap(f"extra{index}", size, filters))
    return tuple(maps)


def head_ops(
    architecture: specs.Architecture,
    num_classes: int,
    image_size: int | tuple[int, int],
    anchors_per_location: tuple[int, ...] = ANCHORS_PER_LOCATION,
) -> list[PlacedOp]:
    """Returns all operations of the extra levels and the predictors, in the order of the model.

    Args:
      architecture: the network that the head belongs to.
      num_classes: number of classes without the background.
      image_size: side of the input or (height, width), in pixels.
      anchors_per_location: number of anchors per location of each of the six feature maps.

    Raises:
      InputError: an argument is out of range.
    """
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
    """Returns the total number of anchors of all six feature maps; 2034 at 320x320."""
    check_anchors_per_location(anchors_per_location)
    maps = feature_maps(architecture, image_size)
    return sum(m.size[0] * m.size[1] * n for m, n in zip(maps, anchors_per_location, strict=True))
