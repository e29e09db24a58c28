"""The folder of a training: what is in it, and whether a second start agrees with the first.

    pipeline.config     the config as it runs
    architecture.json   the network, not yet scaled
    label_map.pbtxt     class names
    settings.json       everything that has to stay the same when the training goes on
    ckpt-N, checkpoint  checkpoints with canonical weight names
    train/, eval/       TensorBoard summaries
    eval_metrics.json   COCO metrics of the evaluated checkpoints
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobiledets_tf import architecture as architectures
from mobiledets_tf import compat, files
from mobiledets_tf.detection import checkpoints, network_settings, pipeline_config
from mobiledets_tf.errors import InputError

compat.enable_object_detection()

from google.protobuf import json_format  # noqa: E402

SCHEMA_VERSION = 1
SETTINGS, CONFIG = "settings.json", "pipeline.config"
ARCHITECTURE, LABEL_MAP = "architecture.json", "label_map.pbtxt"
_SHOWN = 3


def start(folder: str | os.PathLike, config: pipeline_config.PipelineConfig, label_map: str, seed: int):
    """Fills a new folder, or checks that an old one was started with the same settings.

    Args:
      folder: the model folder; made where it's missing.
      config: the whole pipeline config.
      label_map: the label map to keep a copy of.
      seed: of the training.

    Returns:
      The config as it runs: with the architecture and the label map of the folder.

    Raises:
      InputError: the folder was started with other settings (the difference is shown).
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
    # Last: a folder with settings is a whole one.
    files.write_json(folder / SETTINGS, settings)
    return config


def load(folder: str | os.PathLike) -> pipeline_config.PipelineConfig:
    """The config of a training folder, wherever the folder is now.

    Raises:
      InputError: the folder holds no training.
    """
    path = Path(os.path.abspath(folder)) / CONFIG
    if not path.exists():
        raise InputError(f"model_dir {str(folder)!r} holds no training ({CONFIG} is missing)")
    return _as_it_runs(path.parent, pipeline_config.load(path))


def _as_it_runs(folder: Path, config: pipeline_config.PipelineConfig):
    """The config with the folder's own copies, so that a moved folder still works."""
    config = pipeline_config.override(
        config, pipeline_config.Overrides(label_map=str(folder / LABEL_MAP))
    )
    extractor = config.model.ssd.feature_extractor
    if extractor.type.startswith(network_settings.FILE_PREFIX):
        extractor.type = network_settings.FILE_PREFIX + str(folder / ARCHITECTURE)
    return config


def _settings(config, network: network_settings.NetworkSettings, seed: int) -> dict[str, Any]:
    pipeline = json_format.MessageToDict(config, preserving_proto_field_name=True)
    # The files are compared by what is in them, not by where they are.
    pipeline["model"]["ssd"]["feature_extractor"].pop("type")
    pipeline["train_input_reader"].pop("label_map_path", None)
    # A training may be evaluated on anything.
    for part in ("eval_config", "eval_input_reader"):
        pipeline.pop(part, None)
    return {
        "schema_version": SCHEMA_VERSION,
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
            raise InputError(f"model_dir {str(folder)!r} has checkpoints but no {SETTINGS}; use another one")
        return
    before = _flat(files.read_json(path, "settings file"))
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
            f"{'; '.join(different[:_SHOWN])}{more}; choose another folder or the same settings"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary of dotted keys."""
    if value in ({}, []):  # `random_horizontal_flip { }` is a setting, too.
        return {prefix: value}
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, part in items:
        flat |= _flat(part, f"{prefix}.{key}" if prefix else str(key))
    return flat
