"""MobileDet networks inside the TF Object Detection API.

`install()` puts one hook into the API's model builder; its train, eval and export code then
builds our detectors for the extractor types `ssd_mobiledet_{cpu,edgetpu,dsp,gpu}` and
`ssd_mobiledet:FILE`, and its own for every other type. Losses, matcher, anchors, box coder
and post-processing are the API's; the network is one callable of plain Keras layers.
"""

import copy
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf import compat
from mobiledets_tf.compat import keras, tf
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
# The name the stock builder looks up for an architecture file.
_ANY = "ssd_mobiledet"

Network = Callable[..., Any]


class MobileDetFeatureExtractor(ssd_meta_arch.SSDKerasFeatureExtractor):
    """Tells the API how images are scaled; the network itself sits on the model."""

    def preprocess(self, resized_inputs):
        """Maps pixels in [0, 255] to [-1, 1]; float32 [batch, height, width, 3] both."""
        return (2.0 / 255.0) * resized_inputs - 1.0

    def _extract_features(self, preprocessed_inputs):
        raise NotImplementedError("features and predictions come from MobileDetMetaArch.network")


class MobileDetMetaArch(ssd_meta_arch.SSDMetaArch):
    """The stock SSD with a replaceable network.

    `attach` gives it a network: any callable from images [batch, height, width, 3] float32 in
    [-1, 1] and `training` to [raw_boxes [batch, anchors, 4], class_logits [batch, anchors,
    classes + 1]]. The model's variables, its L2 loss and its checkpoints follow the named
    weights, whatever kind of network they belong to.
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
          network: see the class.
          settings: gives the feature map sizes and the weights of the L2 loss.
          named_weights: canonical name to variable; default: `network.weights` by name.
          ranges: observed ranges of a quantised network (`models.quantized`).
        """
        if named_weights is None:
            named_weights = {weight.name: weight for weight in network.weights}
        # Past Keras' tracking: a checkpoint has to hold each weight once, under its canonical name.
        object.__setattr__(self, "_network", network)
        object.__setattr__(self, "_settings", settings)
        self.named_weights = dict(named_weights)
        if ranges:
            self.ranges = dict(ranges)
        maps = architectures.feature_maps(settings.architecture, settings.image_size)
        height, width = settings.image_size
        with tf.init_scope():  # Eager anchors serve every function that uses the model.
            sizes = [level.size for level in maps]
            anchors = self._anchor_generator.generate(sizes, im_height=height, im_width=width)
            self._anchors = box_list_ops.concatenate(anchors)

    @property
    def network(self) -> Network:
        """The attached network."""
        return self._network

    @property
    def settings(self) -> NetworkSettings:
        """What the network was built from."""
        return self._settings

    def predict(self, preprocessed_inputs, true_image_shapes):
        """Runs the network.

        Args:
          preprocessed_inputs: float32 [batch, height, width, 3] in [-1, 1].
          true_image_shapes: unused, images fill their canvas.

        Returns:
          `preprocessed_inputs`, `box_encodings` [batch, anchors, 4],
          `class_predictions_with_background` [batch, anchors, classes + 1] and `anchors`
          [anchors, 4], the keys that the API's `loss` and `postprocess` read.
        """
        training = self._is_training and not self._freeze_batchnorm
        raw_boxes, class_logits = self.network(preprocessed_inputs, training=training)
        return {
            "preprocessed_inputs": preprocessed_inputs,
            # Losses and boxes are computed in float32, whatever the network computes in.
            "box_encodings": tf.cast(raw_boxes, tf.float32),
            "class_predictions_with_background": tf.cast(class_logits, tf.float32),
            "anchors": self.anchors.get(),
        }

    def _assign_targets(
        self, boxes, classes, keypoints=None, weights=None, confidences=None
    ):  # fmt: skip
        """The API's targets, with anchors in crowds left out of the class loss (`detection.crowds`)."""
        targets = super()._assign_targets(boxes, classes, keypoints, weights, confidences)
        if weights is None:
            return targets
        class_targets, class_weights, box_targets, box_weights, match = targets
        class_weights = crowds.class_weights(class_weights, match, self.anchors.get(), boxes, weights)
        return class_targets, class_weights, box_targets, box_weights, match

    def regularization_losses(self):
        """L2 of all convolution kernels, depthwise ones included: half the sum of squares.

        Computed from the variables: layer regularisers get lost in quantisation wrappers.
        Source: TF1 extractor (weight decay of `arg_scope`) and sample configs.
        """
        losses = []
        for name, variable in self.named_weights.items():
            weight = self._settings.predictor_l2 if is_predictor(name) else self._settings.l2
            if weight and is_kernel(name):
                losses.append(weight * tf.nn.l2_loss(variable))
        return losses

    def restore_from_objects(self, fine_tune_checkpoint_type="full"):
        """Which weights a fine-tuning checkpoint gives.

        Args:
          fine_tune_checkpoint_type: `full` all, `detection` all but the predictors (whose
            shapes depend on the classes), `classification` the backbone.
        """
        chosen = fine_tune_weights(self.named_weights, fine_tune_checkpoint_type)
        # The API accepts only this class here, and says something else when it gets another.
        return {"model": tf.compat.v1.train.Checkpoint(named_weights=dict(chosen))}

    def updates(self):
        """None: batch normalisation updates itself in place."""
        return []


def is_predictor(name: str) -> bool:
    """Whether a canonical weight name belongs to a box or class predictor."""
    return name.startswith("predictor")


def is_head(name: str) -> bool:
    """Whether a canonical weight name belongs to an extra level or a predictor."""
    return is_predictor(name) or name.startswith("extra")


def is_kernel(name: str) -> bool:
    """Whether a canonical weight name is that of a convolution kernel, depthwise or not."""
    return name.split("/")[-1].removesuffix(":0") in ("kernel", "depthwise_kernel")


def fine_tune_weights(named_weights: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The weights that a fine-tuning checkpoint of a kind has to hold.

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
    """Puts the hook into the API's model builder. A second call does nothing."""
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
    """Builds the detection model of a config, with another network in it where one is given.

    Args:
      config: the `model` part of a pipeline config, with one of our extractor types.
      is_training: whether batch normalisation and the loss work in training mode.
      network: replaces the network of the config (see `MobileDetMetaArch`); it has to give
        the same anchors. A search attaches its supernet here.
      named_weights: canonical names of its variables; default: `network.weights` by name.
      quantization_aware: attaches the network of the config with simulated quantisation.

    Raises:
      InputError: the config is not one of a MobileDet, or asks for what it doesn't do.
    """
    install()
    if not quantization_aware:
        return _build_mobiledet(config.ssd, is_training, False, network, named_weights)
    # tfmot is needed here only.
    from mobiledets_tf.models.quantized import quantize_detector

    quantized = quantize_detector(build_network(network_settings.read(config.ssd)))
    return _build_mobiledet(
        config.ssd, is_training, False, quantized.network, quantized.named_weights, quantized.ranges
    )


def _build_ssd(ssd: ssd_pb2.Ssd, is_training: bool, add_summaries: bool):
    if network_settings.architecture_name(ssd.feature_extractor.type) is None:
        return _stock_builder(ssd, is_training, add_summaries)
    return _build_mobiledet(ssd, is_training, add_summaries)


def _build_mobiledet(
    ssd, is_training, add_summaries, network=None, named_weights=None, ranges=None
) -> MobileDetMetaArch:
    settings = network_settings.read(ssd)
    ssd = copy.deepcopy(ssd)
    ssd.feature_extractor.type = _ANY
    # The builder's reference is replaced, for this call only: the stock class finds itself by
    # its module name in super() and has to stay where it is.
    ours = types.SimpleNamespace(SSDMetaArch=MobileDetMetaArch)
    with compat.replaced(model_builder, "ssd_meta_arch", ours):
        model = _stock_builder(ssd, is_training, add_summaries)
    if network is None:
        network = build_network(settings)
    model.attach(network, settings, named_weights, ranges)
    return model


def build_network(settings: NetworkSettings) -> keras.Model:
    """The flat Keras model that the settings describe, with fresh weights."""
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
                # One object each: an initialiser that is used twice may draw equal values.
                draw = keras.initializers.TruncatedNormal(stddev=settings.backbone_stddev)
                weight.assign(draw(weight.shape, weight.dtype))
    return network


def initial_weights(settings: NetworkSettings) -> dict[str, np.ndarray]:
    """Draws the weights that a training from scratch starts with.

    Args:
      settings: of the network.

    Returns:
      Arrays by canonical name; the BN scales that `models.fresh_start` names are 0.
    """
    weights = {weight.name: weight for weight in build_network(settings).weights}
    zero_residual_scales(settings.architecture, weights)
    return {name.removesuffix(":0"): weight.numpy() for name, weight in weights.items()}
