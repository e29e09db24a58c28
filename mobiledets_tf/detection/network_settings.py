"""Reads the network settings of a pipeline config and checks that the networks support them.

Values that the networks do not support are rejected: nothing in a config is silently ignored.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mobiledets_tf import architecture as architectures
from mobiledets_tf import compat
from mobiledets_tf.architecture import Architecture
from mobiledets_tf.errors import InputError, unknown_name
from mobiledets_tf.layers import HEAD_NORM, BatchNorm

compat.enable_object_detection()

from object_detection.builders import anchor_generator_builder  # noqa: E402
from object_detection.protos import hyperparams_pb2, ssd_pb2  # noqa: E402

PUBLISHED_PREFIX = "ssd_mobiledet_"
FILE_PREFIX = "ssd_mobiledet:"
_STDDEV = 0.03


@dataclass(frozen=True)
class NetworkSettings:
    """Everything needed to build the network of a config and its loss terms.

    Attributes:
      architecture: the network, before `depth_multiplier` is applied.
      num_classes: classes without the background.
      image_size: (height, width) in pixels.
      depth_multiplier: scales all widths.
      anchors_per_location: number of anchors per location, for each feature map.
      head_norm: batch normalisation settings of the extra feature levels and predictors.
      class_bias: initial bias of the class logits.
      l2: weight of the L2 loss (half the sum of squares) of the backbone and extra feature levels.
      predictor_l2: weight of the L2 loss of the predictors.
      backbone_stddev: standard deviation of the backbone's initial kernels if the config overrides
        the base extractor's hyperparameters; None keeps He initialisation.
      backbone_momentum: momentum of the backbone's moving averages in that case; None keeps 0.99.
        The backbone's epsilon never changes, since an exported network is built from the
        architecture alone.
    """

    architecture: Architecture
    num_classes: int
    image_size: tuple[int, int]
    depth_multiplier: float
    anchors_per_location: tuple[int, ...]
    head_norm: BatchNorm
    class_bias: float
    l2: float
    predictor_l2: float
    backbone_stddev: float | None = None
    backbone_momentum: float | None = None


def extractor_type(architecture: str) -> str:
    """Returns the `feature_extractor.type` for a published name or an architecture file."""
    if architecture in architectures.PUBLISHED:
        return PUBLISHED_PREFIX + architecture
    return FILE_PREFIX + architecture


def architecture_name(extractor: str) -> str | None:
    """Returns the published name or file in a `feature_extractor.type`; None for other model families.

    Raises:
      InputError: the type begins like a MobileDet's but names no known network.
    """
    if extractor.startswith(FILE_PREFIX):
        return extractor[len(FILE_PREFIX) :]
    name = extractor.removeprefix(PUBLISHED_PREFIX)
    if name == extractor:
        return None
    if name not in architectures.PUBLISHED:
        allowed = [PUBLISHED_PREFIX + known for known in architectures.PUBLISHED]
        raise unknown_name("feature_extractor.type", extractor, [*allowed, f"{FILE_PREFIX}FILE"])
    return name


def read(ssd: ssd_pb2.Ssd) -> NetworkSettings:
    """Reads the `model { ssd { ... } }` part of a config.

    Raises:
      InputError: a field is missing, out of range, or requests something the networks don't support.
    """
    _check_fixed_fields(ssd)
    name = architecture_name(ssd.feature_extractor.type)
    if name is None:
        allowed = [PUBLISHED_PREFIX + known for known in architectures.PUBLISHED]
        raise unknown_name("feature_extractor.type", ssd.feature_extractor.type, allowed)
    extractor, predictor = ssd.feature_extractor, ssd.box_predictor.convolutional_box_predictor
    head_norm = _batch_norm(extractor.conv_hyperparams, "feature_extractor.conv_hyperparams")
    predictor_norm = _batch_norm(predictor.conv_hyperparams, "box_predictor.conv_hyperparams")
    _require_equal("box_predictor.batch_norm.decay", predictor_norm.momentum, head_norm.momentum)
    _check_initializer(extractor.conv_hyperparams, "feature_extractor", "truncated_normal_initializer")
    _check_initializer(predictor.conv_hyperparams, "box_predictor", "random_normal_initializer")
    own_start = extractor.override_base_feature_extractor_hyperparams
    resizer = ssd.image_resizer.fixed_shape_resizer
    anchors = anchor_generator_builder.build(ssd.anchor_generator).num_anchors_per_location()
    # Protos store float32 (0.35 comes back as 0.3499999940395355), so numbers are rounded when read.
    return NetworkSettings(
        architecture=architectures.load(name),
        num_classes=ssd.num_classes,
        image_size=architectures.image_hw((resizer.height, resizer.width)),
        depth_multiplier=_rounded([extractor.depth_multiplier])[0],
        anchors_per_location=tuple(anchors),
        head_norm=head_norm,
        class_bias=_rounded([predictor.class_prediction_bias_init])[0],
        l2=_l2(extractor.conv_hyperparams, "feature_extractor"),
        predictor_l2=_l2(predictor.conv_hyperparams, "box_predictor"),
        backbone_stddev=_STDDEV if own_start else None,
        backbone_momentum=head_norm.momentum if own_start else None,
    )


def _check_fixed_fields(ssd: ssd_pb2.Ssd) -> None:
    for field, part in (
        ("fixed_shape_resizer", ssd.image_resizer),
        ("ssd_anchor_generator", ssd.anchor_generator),
        ("convolutional_box_predictor", ssd.box_predictor),
    ):
        if not part.HasField(field):
            given = part.WhichOneof(part.DESCRIPTOR.oneofs[0].name)
            raise InputError(f"{part.DESCRIPTOR.name} is {given}; MobileDet networks require {field}")
    predictor = ssd.box_predictor.convolutional_box_predictor
    _check_boxes(ssd)
    for name, given, allowed in (
        ("feature_extractor.use_depthwise", ssd.feature_extractor.use_depthwise, True),
        ("feature_extractor.use_explicit_padding", ssd.feature_extractor.use_explicit_padding, False),
        ("feature_extractor.num_layers", ssd.feature_extractor.num_layers, 6),
        ("box_predictor.use_depthwise", predictor.use_depthwise, True),
        ("box_predictor.kernel_size", predictor.kernel_size, 3),
        ("box_predictor.num_layers_before_predictor", predictor.num_layers_before_predictor, 0),
        ("box_predictor.use_dropout", predictor.use_dropout, False),
        ("box_predictor.box_code_size", predictor.box_code_size, 4),
        ("box_predictor.apply_sigmoid_to_scores", predictor.apply_sigmoid_to_scores, False),
        ("add_background_class", ssd.add_background_class, True),
        ("return_raw_detections_during_predict", ssd.return_raw_detections_during_predict, False),
    ):
        _require_equal(name, given, allowed)


def _check_boxes(ssd: ssd_pb2.Ssd) -> None:
    """Requires the published anchors and box coder, because exported detectors contain them."""
    _require_equal("box_coder", ssd.box_coder.WhichOneof("box_coder_oneof"), "faster_rcnn_box_coder")
    anchors, coder = ssd.anchor_generator.ssd_anchor_generator, ssd.box_coder.faster_rcnn_box_coder
    for name, given, allowed in (
        ("box_coder.y_scale", coder.y_scale, 10.0),
        ("box_coder.x_scale", coder.x_scale, 10.0),
        ("box_coder.height_scale", coder.height_scale, 5.0),
        ("box_coder.width_scale", coder.width_scale, 5.0),
        ("anchor_generator.num_layers", anchors.num_layers, 6),
        ("anchor_generator.min_scale", anchors.min_scale, 0.2),
        ("anchor_generator.max_scale", anchors.max_scale, 0.95),
        ("anchor_generator.scales", list(anchors.scales), []),
        ("anchor_generator.aspect_ratios", _rounded(anchors.aspect_ratios), [1.0, 2.0, 0.5, 3.0, 0.3333]),
        ("anchor_generator.interpolated_scale_aspect_ratio", anchors.interpolated_scale_aspect_ratio, 1.0),
        ("anchor_generator.reduce_boxes_in_lowest_layer", anchors.reduce_boxes_in_lowest_layer, True),
    ):
        _require_equal(name, given, allowed)


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _require_equal(name: str, given: object, allowed: object) -> None:
    if isinstance(given, float):
        given = _rounded([given])[0]
    if given != allowed:
        raise InputError(f"{name} is {given}; MobileDet networks require {allowed}")


def _batch_norm(hyperparams: hyperparams_pb2.Hyperparams, where: str) -> BatchNorm:
    if not hyperparams.HasField("batch_norm"):
        raise InputError(f"{where} has no batch_norm; MobileDet networks require it")
    norm = hyperparams.batch_norm
    for name, given, allowed in (
        ("scale", norm.scale, True),
        ("center", norm.center, True),
        ("train", norm.train, True),
        # The exported network is built from the architecture alone, so epsilon is fixed.
        ("epsilon", norm.epsilon, HEAD_NORM.epsilon),
    ):
        _require_equal(f"{where}.batch_norm.{name}", given, allowed)
    relu6 = hyperparams_pb2.Hyperparams.RELU_6
    if hyperparams.activation != relu6:
        given = hyperparams_pb2.Hyperparams.Activation.Name(hyperparams.activation)
        raise InputError(f"{where}.activation is {given}; MobileDet heads require RELU_6")
    return BatchNorm(_rounded([norm.decay])[0], HEAD_NORM.epsilon)


def _check_initializer(hyperparams: hyperparams_pb2.Hyperparams, where: str, allowed: str) -> None:
    given = hyperparams.initializer.WhichOneof("initializer_oneof")
    _require_equal(f"{where}.conv_hyperparams.initializer", given, allowed)
    initializer = getattr(hyperparams.initializer, allowed)
    if initializer.mean != 0 or not math.isclose(initializer.stddev, _STDDEV, rel_tol=1e-6):
        raise InputError(
            f"{where}: initializer has mean {initializer.mean:g} and stddev {initializer.stddev:g}; "
            f"MobileDet heads require mean 0 and stddev {_STDDEV}"
        )


def _l2(hyperparams: hyperparams_pb2.Hyperparams, where: str) -> float:
    kind = hyperparams.regularizer.WhichOneof("regularizer_oneof")
    if kind is None:
        return 0.0
    _require_equal(f"{where}.conv_hyperparams.regularizer", kind, "l2_regularizer")
    return _rounded([hyperparams.regularizer.l2_regularizer.weight])[0]
