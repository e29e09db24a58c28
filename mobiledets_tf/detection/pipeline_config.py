"""Reads, writes, generates and modifies pipeline configs of the Object Detection API."""

import copy
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mobiledets_tf import architecture as architectures
from mobiledets_tf import compat, files
from mobiledets_tf.detection import augmentation, network_settings
from mobiledets_tf.errors import InputError

compat.enable_object_detection()

from google.protobuf import text_format  # noqa: E402
from object_detection.protos import pipeline_pb2  # noqa: E402

PipelineConfig: TypeAlias = pipeline_pb2.TrainEvalPipelineConfig

# The published schedule warms up for 2,000 of 400,000 steps, starting at a sixth of the base rate.
# Short training runs need a larger share of warm-up steps to tolerate that rate.
_WARMUP_SHARE = 1 / 20
_WARMUP_FACTOR = 1 / 6

# The recipe of the published configs (`ssdlite_mobiledet_*_320x320_coco_sync_4x4.config`),
# without the fields that depend on the data. These fields differ from the published ones:
# `use_combined_nms`: the API's own loop over images and classes returns the same detections but
# takes minutes to trace.
# `override_base_feature_extractor_hyperparams`: the backbone starts from kernels as small as the
# head's. Under batch normalisation the effective learning rate of a kernel is the learning rate
# divided by the kernel's squared norm. From He initialisation, most backbone kernels moved by less
# than their own norm in 1,200 steps, and AP50 on the sample set was 0.19 instead of 0.34. The field
# also sets the decay of the backbone's moving averages to the head's 0.97; with 0.99 they lag behind
# the weights in a short training run.
# `gradient_clipping_by_norm`: at learning rate 0.2 without clipping, one searched network reached
# AP50 0.80 in one run and 0.39 in another. At 0.1 with clipping, another network reached 0.76 and
# 0.50, so runs still differ.
_RECIPE = """
model { ssd {
  inplace_batchnorm_update: true
  freeze_batchnorm: false
  box_coder { faster_rcnn_box_coder { y_scale: 10 x_scale: 10 height_scale: 5 width_scale: 5 } }
  matcher { argmax_matcher {
    matched_threshold: 0.5 unmatched_threshold: 0.5 ignore_thresholds: false
    negatives_lower_than_unmatched: true force_match_for_each_row: true use_matmul_gather: true
  } }
  similarity_calculator { iou_similarity { } }
  encode_background_as_zeros: true
  anchor_generator { ssd_anchor_generator {
    num_layers: 6 min_scale: 0.2 max_scale: 0.95
    aspect_ratios: [1.0, 2.0, 0.5, 3.0, 0.3333]
  } }
  box_predictor { convolutional_box_predictor {
    min_depth: 0 max_depth: 0 num_layers_before_predictor: 0 use_dropout: false kernel_size: 3
    use_depthwise: true box_code_size: 4 apply_sigmoid_to_scores: false class_prediction_bias_init: -4.6
    conv_hyperparams {
      activation: RELU_6
      regularizer { l2_regularizer { weight: 0.00004 } }
      initializer { random_normal_initializer { stddev: 0.03 mean: 0 } }
      batch_norm { train: true scale: true center: true decay: 0.97 epsilon: 0.001 }
    }
  } }
  feature_extractor {
    min_depth: 16 use_depthwise: true override_base_feature_extractor_hyperparams: true
    conv_hyperparams {
      activation: RELU_6
      regularizer { l2_regularizer { weight: 0.00004 } }
      initializer { truncated_normal_initializer { stddev: 0.03 mean: 0 } }
      batch_norm { train: true scale: true center: true decay: 0.97 epsilon: 0.001 }
    }
  }
  loss {
    classification_loss { weighted_sigmoid_focal { alpha: 0.75 gamma: 2 } }
    localization_loss { weighted_smooth_l1 { delta: 1 } }
    classification_weight: 1
    localization_weight: 1
  }
  normalize_loss_by_num_matches: true
  normalize_loc_loss_by_codesize: true
  post_processing {
    batch_non_max_suppression {
      score_threshold: 1e-8 iou_threshold: 0.6 max_detections_per_class: 100 max_total_detections: 100
      use_combined_nms: true change_coordinate_frame: false
    }
    score_converter: SIGMOID
  }
} }
train_config {
  sync_replicas: true
  optimizer {
    momentum_optimizer {
      learning_rate { cosine_decay_learning_rate { } }
      momentum_optimizer_value: 0.9
    }
    use_moving_average: false
  }
  gradient_clipping_by_norm: 2
  max_number_of_boxes: 100
  unpad_groundtruth_tensors: false
}
train_input_reader { max_number_of_boxes: 100 tf_record_input_reader { } }
eval_config {
  metrics_set: "coco_detection_metrics" use_moving_averages: false batch_size: 1 num_visualizations: 0
}
eval_input_reader { shuffle: false num_epochs: 1 tf_record_input_reader { } }
"""


@dataclass(frozen=True)
class Overrides:
    """User settings that replace values of a config; None keeps the config's own value.

    Attributes:
      architecture: a published name or the path of an architecture file.
      num_classes: classes without the background.
      image_size: (height, width) in pixels.
      depth_multiplier: scales all widths.
      batch_size: images per step, over all replicas together.
      steps: number of training steps; the learning rate schedule is scaled to it.
      learning_rate: base learning rate; the warm-up rate is scaled with it.
      random_flip: mirrors images at random, which is wrong for digits, letters and signs.
      random_crop: applies the SSD random crop of the published recipe.
      random_color: changes brightness, saturation, hue and contrast at random.
      random_scale: makes objects smaller by placing the image on a canvas of up to twice its size.
      train_files, eval_files: TFRecord shards.
      label_map: path of the label map beside the shards.
      quantization_aware: trains with simulated int8 quantisation, starting from float weights.
      mixed_precision: computes the network in bfloat16.
      most_boxes: the largest number of boxes in an image of the data; lower limits in the config
        are raised to it.
    """

    architecture: str | None = None
    num_classes: int | None = None
    image_size: tuple[int, int] | None = None
    depth_multiplier: float | None = None
    batch_size: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    random_flip: bool | None = None
    random_crop: bool | None = None
    random_color: bool | None = None
    random_scale: bool | None = None
    train_files: Sequence[str] | None = None
    eval_files: Sequence[str] | None = None
    label_map: str | None = None
    quantization_aware: bool | None = None
    mixed_precision: bool | None = None
    most_boxes: int | None = None


def parse(text: str, where: str = "pipeline config") -> PipelineConfig:
    """Parses a config in protobuf text format.

    Raises:
      InputError: the text is malformed; the message names the line.
    """
    try:
        return text_format.Parse(text, PipelineConfig())
    except text_format.ParseError as error:
        # The message begins with "line:column : ", which the exception also carries as attributes.
        reason = re.sub(r"^\d+:\d+ : ", "", str(error))
        line = f" line {error.GetLine()}" if error.GetLine() else ""
        raise InputError(f"{where}{line}: {reason}") from error


def load(path: str | os.PathLike) -> PipelineConfig:
    """Reads a `.config` file.

    Raises:
      InputError: the file is missing, unreadable or malformed.
    """
    return parse(files.read_text(path, "pipeline config"), f"pipeline config {str(path)!r}")


def save(config: PipelineConfig, path: str | os.PathLike) -> None:
    """Writes a config in protobuf text format, atomically."""
    files.write_text(path, text_format.MessageToString(config))


def generate(overrides: Overrides) -> PipelineConfig:
    """Generates a config for a small data set: published losses and head, batch 16, base rate 0.2.

    Args:
      overrides: settings that replace these defaults; `architecture` and `num_classes` are required.
    """
    steps, rate = 2000, 0.2
    defaults = Overrides(
        image_size=(320, 320), depth_multiplier=1.0, batch_size=16, steps=steps, learning_rate=rate
    )
    config = parse(_RECIPE)
    schedule = _schedule(config)
    schedule.learning_rate_base = rate
    schedule.warmup_learning_rate = rate * _WARMUP_FACTOR
    schedule.total_steps = config.train_config.num_steps = steps
    schedule.warmup_steps = int(steps * _WARMUP_SHARE)
    return override(override(config, defaults), overrides)


def override(config: PipelineConfig, overrides: Overrides) -> PipelineConfig:
    """Returns a copy of a config with the given values set.

    Raises:
      InputError: the config has no field for a value, or a value is out of range.
    """
    config = copy.deepcopy(config)
    _override_model(config.model.ssd, overrides)
    _override_data(config, overrides)
    if overrides.batch_size is not None:
        config.train_config.batch_size = _at_least("batch size", overrides.batch_size, 1)
    if overrides.most_boxes is not None:
        for part in (config.train_config, config.train_input_reader, *config.eval_input_reader):
            part.max_number_of_boxes = max(part.max_number_of_boxes, overrides.most_boxes)
    if overrides.steps is not None:
        _set_steps(config, _at_least("steps", overrides.steps, 1))
    if overrides.learning_rate is not None:
        _set_learning_rate(config, overrides.learning_rate)
    if overrides.mixed_precision is not None:
        config.train_config.use_bfloat16 = overrides.mixed_precision
    if overrides.quantization_aware is not None:
        _set_quantization(config, overrides.quantization_aware)
    for name in augmentation.STEPS:
        wanted = getattr(overrides, f"random_{name}")
        if wanted is not None:
            _set_augmentation(config, name, wanted)
    return config


def is_quantization_aware(config: PipelineConfig) -> bool:
    """Returns whether a config enables simulated quantisation: `graph_rewriter { quantization { } }`.

    Raises:
      InputError: the config requests anything but int8 quantisation from the first step.
    """
    if not config.graph_rewriter.HasField("quantization"):
        return False
    asked = config.graph_rewriter.quantization
    if (asked.delay, asked.weight_bits, asked.activation_bits) != (0, 8, 8):
        raise InputError(
            f"graph_rewriter.quantization has delay {asked.delay}, weight_bits {asked.weight_bits}, "
            f"activation_bits {asked.activation_bits}; allowed: 0, 8, 8 (start from a float checkpoint)"
        )
    return True


def schedule_fields() -> tuple[str, ...]:
    """Returns the fields that may change when a run is extended; all others have to stay the same."""
    rate = "train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate"
    return ("train_config.num_steps", f"{rate}.total_steps", f"{rate}.warmup_steps")


def _override_model(ssd: Any, overrides: Overrides) -> None:
    if overrides.architecture is not None:
        ssd.feature_extractor.type = network_settings.extractor_type(overrides.architecture)
    if overrides.num_classes is not None:
        ssd.num_classes = overrides.num_classes
    if overrides.image_size is not None:
        height, width = architectures.image_hw(overrides.image_size)
        ssd.image_resizer.fixed_shape_resizer.height = height
        ssd.image_resizer.fixed_shape_resizer.width = width
    if overrides.depth_multiplier is not None:
        ssd.feature_extractor.depth_multiplier = overrides.depth_multiplier


def _override_data(config: PipelineConfig, overrides: Overrides) -> None:
    if not config.eval_input_reader:
        config.eval_input_reader.add()
    train, evaluation = config.train_input_reader, config.eval_input_reader[0]
    for reader, shards in ((train, overrides.train_files), (evaluation, overrides.eval_files)):
        if shards is not None:
            reader.tf_record_input_reader.input_path[:] = list(shards)
        if overrides.label_map is not None:
            reader.label_map_path = overrides.label_map


def _schedule(config: PipelineConfig) -> Any:
    """Returns the cosine schedule of a config, or None if it has another optimizer or schedule."""
    optimizer = config.train_config.optimizer
    kind = optimizer.WhichOneof("optimizer")
    rate = getattr(optimizer, kind).learning_rate if kind else None
    if rate is None or rate.WhichOneof("learning_rate") != "cosine_decay_learning_rate":
        return None
    return rate.cosine_decay_learning_rate


def _set_steps(config: PipelineConfig, steps: int) -> None:
    schedule = _schedule(config)
    if schedule is not None and schedule.total_steps:
        schedule.warmup_steps = round(schedule.warmup_steps * steps / schedule.total_steps)
        schedule.total_steps = steps
    config.train_config.num_steps = steps


def _set_learning_rate(config: PipelineConfig, learning_rate: float) -> None:
    schedule = _schedule(config)
    if schedule is None:
        raise InputError(
            "--learning_rate requires a config with cosine_decay_learning_rate; otherwise edit the config"
        )
    if not 0 < learning_rate <= 100:
        raise InputError(f"learning rate is {learning_rate}; allowed: above 0, at most 100")
    schedule.warmup_learning_rate *= learning_rate / schedule.learning_rate_base
    schedule.learning_rate_base = learning_rate


def _set_quantization(config: PipelineConfig, wanted: bool) -> None:
    config.ClearField("graph_rewriter")
    if wanted:
        quantization = config.graph_rewriter.quantization
        quantization.delay, quantization.weight_bits, quantization.activation_bits = 0, 8, 8


def _set_augmentation(config: PipelineConfig, name: str, wanted: bool) -> None:
    options = config.train_config.data_augmentation_options
    step = augmentation.STEPS[name]
    others = [option for option in options if option.WhichOneof("preprocessing_step") != step]
    del options[:]
    options.extend([*others, augmentation.step(name)] if wanted else others)


def mirrors(config: PipelineConfig) -> bool:
    """Returns whether training with the config mirrors images at random."""
    options = config.train_config.data_augmentation_options
    return any(each.WhichOneof("preprocessing_step") == augmentation.STEPS["flip"] for each in options)


def _at_least(what: str, value: int, low: int) -> int:
    if value < low:
        raise InputError(f"{what} is {value}; allowed: {low} or more")
    return value
