"""The model folder of a training run: its contents, and the check that a resumed run has the same settings.

pipeline.config     the config that the run uses
architecture.json   the network, before the depth multiplier is applied
label_map.pbtxt     class names
settings.json       everything that has to stay the same when the run is resumed
ckpt-N, checkpoint  checkpoints with canonical weight names
train/, eval/       TensorBoard summaries
eval_metrics.json   COCO metrics of the evaluated checkpoints
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mobiledets_tf import architecture as architectures
from mobiledets_tf import compat, files
from mobiledets_tf.detection import network_settings, pipeline_config
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import checkpoints, trained_folder
from mobiledets_tf.weights.trained_folder import ARCHITECTURE, LABEL_MAP, SETTINGS

compat.enable_object_detection()

from google.protobuf import json_format  # noqa: E402

CONFIG = "pipeline.config"
_SHOWN = 3


def start(
    folder: str | os.PathLike, config: pipeline_config.PipelineConfig, label_map: str, seed: int
) -> pipeline_config.PipelineConfig:
    """Fills a new model folder, or checks that an existing one was started with the same settings.

    Args:
      folder: the model folder; created if it is missing.
      config: the complete pipeline config.
      label_map: path of the label map, which is copied into the folder.
      seed: seed of the training run.

    Returns:
      The config that the run uses, which refers to the folder's copies of the architecture and label map.

    Raises:
      InputError: the folder was started with other settings (the message shows the differences).
    """
    folder = Path(os.path.abspath(folder))
    network = network_settings.read(config.model.ssd)
    settings = _settings(config, network, seed)
    _check_agreement(folder, settings)
    label_map_text = Path(label_map).read_text(encoding="utf-8")
    config = _as_it_runs(folder, config)
    architectures.save(network.architecture, folder / ARCHITECTURE)
    files.write_text(folder / LABEL_MAP, label_map_text)
    pipeline_config.save(config, folder / CONFIG)
    # The settings are written last: a folder that has them is complete.
    files.write_json(folder / SETTINGS, settings)
    return config


def load(folder: str | os.PathLike) -> pipeline_config.PipelineConfig:
    """Reads the config of a model folder, which may have been moved.

    Raises:
      InputError: the folder contains no training run.
    """
    path = Path(os.path.abspath(folder)) / CONFIG
    if not path.exists():
        raise InputError(f"model_dir {str(folder)!r} contains no training run ({CONFIG} is missing)")
    return _as_it_runs(path.parent, pipeline_config.load(path))


def _as_it_runs(folder: Path, config: pipeline_config.PipelineConfig) -> pipeline_config.PipelineConfig:
    """Points the config to the folder's own copies, so that a moved folder still works."""
    config = pipeline_config.override(config, pipeline_config.Overrides(label_map=str(folder / LABEL_MAP)))
    extractor = config.model.ssd.feature_extractor
    if extractor.type.startswith(network_settings.FILE_PREFIX):
        extractor.type = network_settings.FILE_PREFIX + str(folder / ARCHITECTURE)
    return config


def _settings(
    config: pipeline_config.PipelineConfig, network: network_settings.NetworkSettings, seed: int
) -> dict[str, Any]:
    pipeline = json_format.MessageToDict(config, preserving_proto_field_name=True)
    # These two files are compared by content, so their paths do not matter.
    pipeline["model"]["ssd"]["feature_extractor"].pop("type")
    pipeline["train_input_reader"].pop("label_map_path", None)
    # A run may be evaluated on any data.
    for part in ("eval_config", "eval_input_reader"):
        pipeline.pop(part, None)
    return {
        "schema_version": trained_folder.SETTINGS_VERSION,
        "num_classes": network.num_classes,
        "image_size": list(network.image_size),
        "depth_multiplier": network.depth_multiplier,
        "seed": seed,
        "architecture": architectures.to_dict(network.architecture),
        "pipeline": pipeline,
    }


def _check_agreement(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / SETTINGS
    if not path.exists():
        if checkpoints.kept(folder):
            raise InputError(
                f"model_dir {str(folder)!r} has checkpoints but no {SETTINGS}; use another folder"
            )
        return
    before = _flat(files.read_artefact(path, "settings file", trained_folder.SETTINGS_VERSION, absent=1))
    now = _flat(settings)
    free = {f"pipeline.{field}" for field in pipeline_config.schedule_fields()}
    different = [
        f"{key} was {before.get(key, 'not set')}, now {now.get(key, 'not set')}"
        for key in sorted(before.keys() | now.keys(), key=lambda key: (key.count("."), key))
        if before.get(key) != now.get(key) and key not in free
    ]
    if different:
        more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise InputError(
            f"model_dir {str(folder)!r} was started with other settings: "
            f"{'; '.join(different[:_SHOWN])}{more}; use another folder or the same settings"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries and lists into one dictionary with dotted keys."""
    if value in ({}, []):  # An empty message such as `random_horizontal_flip { }` is a setting, too.
        return {prefix: value}
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, part in items:
        flat |= _flat(part, f"{prefix}.{key}" if prefix else str(key))
    return flat
