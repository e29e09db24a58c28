"""Integrates MobileDet networks into the TF Object Detection API.

`install()` adds one hook to the API's model builder. The API's train, eval and export code then
builds this project's detectors for the extractor types `ssd_mobiledet_{cpu,edgetpu,dsp,gpu}` and
`ssd_mobiledet:FILE`, and the API's own detectors for every other type. Losses, matcher, anchors,
box coder and post-processing are the API's; the network is one callable made of plain Keras layers.
"""

import copy
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, cast

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf import compat
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.data.scaling import to_network_range
from mobiledets_tf.detection import crowds, network_settings
from mobiledets_tf.detection.network_settings import NetworkSettings
from mobiledets_tf.models import build_detector
from mobiledets_tf.models.fresh_start import zero_residual_scales

compat.enable_object_detection()

from object_detection.builders import model_builder  # noqa: E402
from object_detection.core import box_list_ops  # noqa: E402
from object_detection.meta_architectures import ssd_meta_arch  # noqa: E402
from object_detection.protos import model_pb2, ssd_pb2  # noqa: E402

_stock_builder = model_builder.META_ARCH_BUILDER_MAP["ssd"]
# The extractor type that the stock builder looks up for all MobileDet networks.
_ANY = "ssd_mobiledet"

Network = Callable[..., Any]


class MobileDetFeatureExtractor(ssd_meta_arch.SSDKerasFeatureExtractor):
    """Feature extractor that only scales images; the network belongs to `MobileDetMetaArch`."""

    def preprocess(self, resized_inputs: tf.Tensor) -> tf.Tensor:
        """Maps pixels from [0, 255] to [-1, 1]; input and output are float32 [batch, height, width, 3]."""
        return to_network_range(resized_inputs)

    def _extract_features(self, preprocessed_inputs: tf.Tensor) -> NoReturn:
        raise NotImplementedError("features and predictions come from MobileDetMetaArch.network")


class MobileDetMetaArch(ssd_meta_arch.SSDMetaArch):
    """The API's stock SSD model with a replaceable network.

    `attach` sets the network: any callable that accepts images (float32 [batch, height, width, 3]
    in [-1, 1]) and `training`, and returns [raw_boxes [batch, anchors, 4], class_logits [batch,
    anchors, classes + 1]]. The model's variables, L2 loss and checkpoints are determined by the
    named weights, whatever kind of network they belong to.
    """

    def attach(
        self,
        network: Network,
        settings: NetworkSettings,
        named_weights: Mapping[str, Any] | None = None,
        ranges: Mapping[str, Any] | None = None,
    ) -> None:
        """Sets the network, its anchors and its weights.

        Args:
          network: a callable as described in the class docstring.
          settings: determine the feature map sizes and the weights of the L2 loss.
          named_weights: maps canonical names to variables; default: `network.weights` by name.
          ranges: observed ranges of a quantised network (`models.quantized`).
        """
        if named_weights is None:
            named_weights = {weight.name: weight for weight in cast(keras.Model, network).weights}
        # Bypass Keras' attribute tracking: a checkpoint has to contain each weight once, under its
        # canonical name.
        object.__setattr__(self, "_network", network)
        object.__setattr__(self, "_settings", settings)
        self.named_weights = dict(named_weights)
        if ranges:
            self.ranges = dict(ranges)
        maps = architectures.feature_maps(settings.architecture, settings.image_size)
        height, width = settings.image_size
        with tf.init_scope():  # Anchors are made eagerly, so that every function can use them.
            sizes = [level.size for level in maps]
            anchors = self._anchor_generator.generate(sizes, im_height=height, im_width=width)
            self._anchors = box_list_ops.concatenate(anchors)

    @property
    def network(self) -> Network:
        """The attached network."""
        return self._network

    @property
    def settings(self) -> NetworkSettings:
        """The settings that the network was built from."""
        return self._settings

    def predict(self, preprocessed_inputs: tf.Tensor, true_image_shapes: tf.Tensor) -> dict[str, Any]:
        """Runs the network.

        Args:
          preprocessed_inputs: float32 [batch, height, width, 3] in [-1, 1].
          true_image_shapes: unused, because images fill their canvas.

        Returns:
          A dictionary with the keys that the API's `loss` and `postprocess` read:
          `preprocessed_inputs`, `box_encodings` [batch, anchors, 4],
          `class_predictions_with_background` [batch, anchors, classes + 1] and `anchors`
          [anchors, 4].
        """
        training = self._is_training and not self._freeze_batchnorm
        raw_boxes, class_logits = self.network(preprocessed_inputs, training=training)
        return {
            "preprocessed_inputs": preprocessed_inputs,
            # Losses and boxes are computed in float32, whatever the dtype of the network.
            "box_encodings": tf.cast(raw_boxes, tf.float32),
            "class_predictions_with_background": tf.cast(class_logits, tf.float32),
            "anchors": self.anchors.get(),
        }

    def _assign_targets(
        self, boxes: Any, classes: Any, keypoints: Any = None, weights: Any = None, confidences: Any = None
    ) -> tuple:
        """Returns the API's targets, with anchors in crowds excluded from the class loss (`crowds`)."""
        targets = super()._assign_targets(boxes, classes, keypoints, weights, confidences)
        if weights is None:
            return targets
        class_targets, class_weights, box_targets, box_weights, match = targets
        class_weights = crowds.class_weights(class_weights, match, self.anchors.get(), boxes, weights)
        return class_targets, class_weights, box_targets, box_weights, match

    def regularization_losses(self) -> list[tf.Tensor]:
        """Computes the L2 loss (half the sum of squares) of all convolution kernels, depthwise included.

        It is computed from the variables, because layer regularisers get lost in quantisation wrappers.
        Source: the TF1 extractor (weight decay of its `arg_scope`) and the sample configs.
        """
        losses = []
        for name, variable in self.named_weights.items():
            weight = self._settings.predictor_l2 if is_predictor(name) else self._settings.l2
            if weight and is_kernel(name):
                losses.append(weight * tf.nn.l2_loss(variable))
        return losses

    def restore_from_objects(self, fine_tune_checkpoint_type: str = "full") -> dict[str, Any]:
        """Returns the objects to restore from a fine-tuning checkpoint.

        Args:
          fine_tune_checkpoint_type: `full` restores all weights, `detection` all but those of the
            predictors (whose shapes depend on the classes), `classification` those of the backbone.
        """
        chosen = fine_tune_weights(self.named_weights, fine_tune_checkpoint_type)
        # The API accepts only this class here; its error message for any other class is misleading.
        return {"model": tf.compat.v1.train.Checkpoint(named_weights=dict(chosen))}

    def updates(self) -> list:
        """Returns no update ops, because batch normalisation updates its averages in place."""
        return []


def is_predictor(name: str) -> bool:
    """Returns whether a canonical weight name belongs to a box or class predictor."""
    return name.startswith("predictor")


def is_head(name: str) -> bool:
    """Returns whether a canonical weight name belongs to an extra feature level or a predictor."""
    return is_predictor(name) or name.startswith("extra")


def is_kernel(name: str) -> bool:
    """Returns whether a canonical weight name denotes a convolution kernel, depthwise or not."""
    return name.split("/")[-1].removesuffix(":0") in ("kernel", "depthwise_kernel")


def fine_tune_weights(named_weights: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Selects the weights that a fine-tuning checkpoint of a kind has to contain.

    Raises:
      ValueError: the kind is none of `full`, `detection`, `classification`.
    """
    kept = {
        "full": lambda name: True,
        "detection": lambda name: not is_predictor(name),
        "classification": lambda name: not is_head(name),
    }
    if kind not in kept:
        raise ValueError(f"fine_tune_checkpoint_type is {kind!r}; allowed: {', '.join(kept)}")
    return {name: weight for name, weight in named_weights.items() if kept[kind](name)}


def install() -> None:
    """Adds the hook to the API's model builder; further calls have no effect."""
    known = model_builder.SSD_KERAS_FEATURE_EXTRACTOR_CLASS_MAP
    for name in (_ANY, *(network_settings.PUBLISHED_PREFIX + name for name in architectures.PUBLISHED)):
        known[name] = MobileDetFeatureExtractor
    model_builder.META_ARCH_BUILDER_MAP["ssd"] = _build_ssd


def build_detection_model(
    config: model_pb2.DetectionModel,
    is_training: bool,
    network: Network | None = None,
    named_weights: Mapping[str, Any] | None = None,
    quantization_aware: bool = False,
) -> MobileDetMetaArch:
    """Builds the detection model of a config, optionally with another network.

    Args:
      config: the `model` part of a pipeline config, with one of this project's extractor types.
      is_training: whether batch normalisation and the loss work in training mode.
      network: replaces the network of the config (see `MobileDetMetaArch`); it has to produce
        predictions for the same anchors. A search attaches its supernet here.
      named_weights: variables of `network` by canonical name; default: `network.weights` by name.
      quantization_aware: attaches the network of the config with simulated quantisation.

    Raises:
      InputError: the config does not describe a MobileDet, or requests something unsupported.
    """
    install()
    if not quantization_aware:
        return _build_mobiledet(config.ssd, is_training, False, network, named_weights)
    # Imported here because only this function needs tfmot.
    from mobiledets_tf.models.quantized import quantize_detector

    settings = network_settings.read(config.ssd)
    quantized = quantize_detector(build_network(settings))
    return _build_mobiledet(
        config.ssd, is_training, False, quantized.network, quantized.named_weights, quantized.ranges, settings
    )


def _build_ssd(ssd: ssd_pb2.Ssd, is_training: bool, add_summaries: bool) -> Any:
    if network_settings.architecture_name(ssd.feature_extractor.type) is None:
        return _stock_builder(ssd, is_training, add_summaries)
    return _build_mobiledet(ssd, is_training, add_summaries)


def _build_mobiledet(
    ssd: ssd_pb2.Ssd,
    is_training: bool,
    add_summaries: bool,
    network: Network | None = None,
    named_weights: Mapping[str, Any] | None = None,
    ranges: Mapping[str, Any] | None = None,
    settings: NetworkSettings | None = None,
) -> MobileDetMetaArch:
    settings = settings or network_settings.read(ssd)
    ssd = copy.deepcopy(ssd)
    ssd.feature_extractor.type = _ANY
    # Only the builder's reference is replaced, for this call: the stock class refers to itself by
    # its module name in super() and has to stay in its module.
    ours = types.SimpleNamespace(SSDMetaArch=MobileDetMetaArch)
    with compat.replaced(model_builder, "ssd_meta_arch", ours):
        model = _stock_builder(ssd, is_training, add_summaries)
    if network is None:
        network = build_network(settings)
    model.attach(network, settings, named_weights, ranges)
    return model


def build_network(settings: NetworkSettings) -> keras.Model:
    """Builds the flat Keras model that the settings describe, with newly initialised weights."""
    network = build_detector(
        settings.architecture,
        settings.num_classes,
        image_size=settings.image_size,
        depth_multiplier=settings.depth_multiplier,
        anchors_per_location=settings.anchors_per_location,
        head_norm=settings.head_norm,
        class_bias=settings.class_bias,
    )
    if settings.backbone_momentum is not None:
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization) and not is_head(layer.name):
                layer.momentum = settings.backbone_momentum
    if settings.backbone_stddev is not None:
        for weight in network.weights:
            if is_kernel(weight.name) and not is_head(weight.name):
                # Each kernel needs its own initialiser: one that is used twice may draw equal values.
                draw = keras.initializers.TruncatedNormal(stddev=settings.backbone_stddev)
                weight.assign(draw(weight.shape, weight.dtype))
    return network


def initial_weights(settings: NetworkSettings) -> dict[str, np.ndarray]:
    """Draws the initial weights of a training run from scratch.

    Args:
      settings: settings of the network.

    Returns:
      Arrays by canonical name; the BN scales that `models.fresh_start` names are 0.
    """
    weights = {weight.name: weight for weight in build_network(settings).weights}
    zero_residual_scales(settings.architecture, weights)
    return {name.removesuffix(":0"): weight.numpy() for name, weight in weights.items()}
