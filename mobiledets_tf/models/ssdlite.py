"""The SSDLite detector: one flat functional model from image to raw boxes and logits."""

import itertools
from collections.abc import Sequence
from typing import Any

from mobiledets_tf.architecture import ANCHORS_PER_LOCATION, Architecture, feature_maps, image_hw
from mobiledets_tf.architecture.head import BOX_CODE_SIZE, check_anchors_per_location, check_num_classes
from mobiledets_tf.architecture.ops import ConvOp, lower_extra_level, lower_predictor
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.layers import HEAD_NORM, BatchNorm
from mobiledets_tf.layers.base import apply_layers, conv_layers
from mobiledets_tf.models.backbone import backbone_endpoints

# Initialisers of the sample configs: truncated normal for extra levels, normal for predictors, both with a
# standard deviation of 0.03.
_EXTRA_INIT = keras.initializers.TruncatedNormal
_PREDICTOR_INIT = keras.initializers.RandomNormal
_HEAD_STDDEV = 0.03


def build_detector(
    architecture: Architecture,
    num_classes: int,
    image_size: int | tuple[int, int] = 320,
    depth_multiplier: float = 1.0,
    anchors_per_location: tuple[int, ...] = ANCHORS_PER_LOCATION,
    head_norm: BatchNorm = HEAD_NORM,
    class_bias: float = -4.6,
) -> keras.Model:
    """Builds a full SSDLite detector of plain Keras layers, without post-processing.

    Example:
      ```python
      from mobiledets_tf import architecture
      from mobiledets_tf.models import build_detector

      model = build_detector(architecture.load("edgetpu"), num_classes=10, image_size=160)
      print(model.output_shape)
      ```

    Args:
      architecture: architecture of the network.
      num_classes: number of classes without the background.
      image_size: side, or (height, width), in pixels.
      depth_multiplier: scales all widths, extra levels included, rounding half up to a
        multiple of 8.
      anchors_per_location: number of anchors per location on each of the six feature maps.
      head_norm: BN settings of extra levels and predictors.
      class_bias: initial bias of the class logits; -4.6 gives a prior of 0.01 (the sample
        configs' class_prediction_bias_init).

    Returns:
      A model from `image` [batch, height, width, 3] float32 in [-1, 1] to
      [raw_boxes [batch, anchors, 4], class_logits [batch, anchors, num_classes + 1]], float32;
      boxes are encoded as (ty, tx, th, tw), and class slot 0 is the background. Weight names are
      unique and stable; checkpoints use them.

    Raises:
      InputError: image size, class count, multiplier or anchors per location are out of range.
    """
    check_num_classes(num_classes)
    check_anchors_per_location(anchors_per_location)
    architecture = architecture.scaled(depth_multiplier)
    image = keras.Input((*image_hw(image_size), 3), name="image")
    endpoints = backbone_endpoints(architecture, image)
    maps = _six_maps(architecture, endpoints, image_size, head_norm)
    sizes = [level.size for level in feature_maps(architecture, image_size)]
    outputs = [
        _predict(maps, sizes, anchors_per_location, task, columns, head_norm, bias)
        for task, columns, bias in (("box", BOX_CODE_SIZE, 0.0), ("class", num_classes + 1, class_bias))
    ]
    return keras.Model(image, outputs, name="mobiledet_ssdlite")


def _six_maps(
    architecture: Architecture,
    endpoints: dict[str, tf.Tensor],
    image_size: int | tuple[int, int],
    norm: BatchNorm,
) -> list:
    levels = feature_maps(architecture, image_size)
    maps = [endpoints["C4"], endpoints["C5"]]
    for before, level in itertools.pairwise(levels[1:]):
        maps.append(
            _chain(
                lower_extra_level(before.channels, level.channels), level.name, maps[-1], norm, _EXTRA_INIT
            )
        )
    return maps


def _predict(
    maps: Sequence[tf.Tensor],
    sizes: Sequence[tuple[int, int]],
    anchors_per_location: Sequence[int],
    task: str,
    columns: int,
    norm: BatchNorm,
    bias: float,
) -> tf.Tensor:
    """Applies one task's predictors to all feature maps; returns [batch, anchors, columns]."""
    rows = []
    for index, (x, size, anchors) in enumerate(zip(maps, sizes, anchors_per_location, strict=True)):
        name = f"predictor{index}_{task}"
        x = _chain(lower_predictor(x.shape[-1], anchors * columns), name, x, norm, _PREDICTOR_INIT, bias)
        rows.append(keras.layers.Reshape((size[0] * size[1] * anchors, columns), name=f"{name}_rows")(x))
    return keras.layers.Concatenate(axis=1, name={"box": "raw_boxes", "class": "class_logits"}[task])(rows)


def _chain(
    ops: tuple[ConvOp, ...], name: str, x: tf.Tensor, norm: BatchNorm, init: Any, bias: float = 0.0
) -> tf.Tensor:
    for op in ops:
        # In TensorFlow 2.20 on CPUs the bfloat16 gradient of this kernel has values of the order of 1e34.
        single = op.depthwise and op.strides > 1 and tuple(x.shape[1:3]) == (1, 1)
        # Each layer has its own initialiser: two layers that share an object may draw equal values.
        layers = conv_layers(
            op,
            f"{name}_{op.name}",
            norm,
            init(stddev=_HEAD_STDDEV),
            init(stddev=_HEAD_STDDEV),
            keras.initializers.Constant(bias),
            "float32" if single else None,
        )
        x = apply_layers(layers, x)
    return x
