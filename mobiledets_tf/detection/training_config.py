"""Builds a checked pipeline config from a user's input: an architecture or a config, data and a folder."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobiledets_tf.data import classes, records
from mobiledets_tf.data.record_index import DamagedRecord, RecordIndex
from mobiledets_tf.detection import model_dir, network_settings, pipeline_config, presets
from mobiledets_tf.detection.pipeline_config import Overrides, PipelineConfig
from mobiledets_tf.errors import InputError

# Number of examples checked: enough to find labels that don't match, without reading a large data set twice.
_EXAMPLES_CHECKED = 1000


@dataclass(frozen=True)
class Job:
    """User input of a training run.

    Attributes:
      model_dir: the model folder; an existing config in it is resumed.
      pipeline_config: path of a config file to start from, or None.
      train_data: converted data folder or file pattern; None uses the files that the config names.
      eval_data: likewise for evaluation; None uses the folder of `train_data`, or the config's files.
      needs_eval: whether evaluation data is required.
      preset: one of `options.PRESETS`; values set in `overrides` take precedence over it.
      max_damaged_records: number of damaged training records to skip before failing.
      overrides: settings that replace those of the config; `train_files`, `eval_files` and
        `label_map` of these overrides are ignored.
    """

    model_dir: str
    pipeline_config: str | None = None
    train_data: str | None = None
    eval_data: str | None = None
    needs_eval: bool = True
    preset: str | None = None
    max_damaged_records: int = 0
    overrides: Overrides = dataclasses.field(default_factory=Overrides)


def train_config(job: Job) -> tuple[PipelineConfig, str]:
    """Returns the complete, checked config of a training run and the path of its label map.

    Raises:
      InputError: the data, label map, network or sizes are invalid or don't fit together.
    """
    base = _base(job)
    train_files = _files(job.train_data, "train", base and base.train_input_reader)
    if not train_files:
        raise InputError("--train_data is required: a converted data folder or a pattern of TFRecord files")
    eval_files = _eval_files(job, base)
    label_map = _label_map(base, train_files, job.train_data)
    names = records.read_label_map(label_map)
    _check_classes(job, names, label_map, eval_files)
    overrides = dataclasses.replace(
        _with_preset(job, train_files),
        train_files=train_files,
        eval_files=eval_files,
        label_map=label_map,
        most_boxes=records.most_boxes([*train_files, *eval_files]) or None,
        num_classes=job.overrides.num_classes or (max(names) if base is None else None),
    )
    if base is None:
        config = pipeline_config.generate(overrides)
    else:
        config = pipeline_config.override(base, overrides)
    check(config, names, label_map)
    num_classes = config.model.ssd.num_classes
    check_examples(train_files, num_classes, "training", label_map, job.max_damaged_records)
    if job.needs_eval:
        check_examples(eval_files, num_classes, "evaluation", label_map)
    return config, label_map


def eval_config(folder: str | os.PathLike, eval_data: str | None = None) -> PipelineConfig:
    """Returns the config of a model folder, with other evaluation data if `eval_data` is given.

    Raises:
      InputError: the folder contains no training run, or the data doesn't fit its network.
    """
    config = model_dir.load(folder)
    if eval_data is not None:
        config = pipeline_config.override(config, Overrides(eval_files=_files(eval_data, "val", None)))
    files = list(config.eval_input_reader[0].tf_record_input_reader.input_path)
    if not files:
        raise InputError("--eval_data is required, because this run was started without evaluation data")
    path = config.eval_input_reader[0].label_map_path
    names = records.read_label_map(path)
    if beside := classes.beside(files):
        classes.require_same(beside[0], repr(beside[1]), names, f"the training in {str(folder)!r}")
    check_examples(files, config.model.ssd.num_classes, "evaluation", path)
    return pipeline_config.override(config, Overrides(most_boxes=records.most_boxes(files) or None))


def _check_classes(job: Job, names: dict[int, str], label_map: str, eval_files: list[str]) -> None:
    """Compares the training data's classes with those of the evaluation data and of the model folder."""
    kept = os.path.join(job.model_dir, model_dir.LABEL_MAP)
    if os.path.exists(kept):
        there = f"the training in {str(job.model_dir)!r}"
        classes.require_same(names, repr(label_map), records.read_label_map(kept), there)
    if eval_files and (beside := classes.beside(eval_files)):
        classes.require_same(beside[0], repr(beside[1]), names, repr(label_map))


def check(config: PipelineConfig, names: dict[int, str], label_map: str) -> None:
    """Checks everything in a config that can be checked without reading images.

    Args:
      config: the complete config.
      names: class names by id.
      label_map: path of the label map that contains the names, for messages.

    Raises:
      InputError: the network is not a MobileDet of this project, the classes don't match, the number
        of steps is 0, or the optimizer keeps moving averages of the weights, which evaluation can't use.
    """
    extractor = config.model.ssd.feature_extractor.type
    if config.model.WhichOneof("model") != "ssd" or network_settings.architecture_name(extractor) is None:
        raise InputError(
            f"feature_extractor.type is {extractor!r}; allowed: ssd_mobiledet_cpu, _edgetpu, _dsp, _gpu "
            "or ssd_mobiledet:FILE"
        )
    settings = network_settings.read(config.model.ssd)
    # Ids may have gaps, as in COCO; the outputs for the missing ids are then never trained.
    if max(names) != settings.num_classes:
        raise InputError(
            f"classes don't match the head: {label_map!r} has {len(names)} classes with ids "
            f"up to {max(names)}, but the model has num_classes {settings.num_classes}"
        )
    if config.train_config.optimizer.use_moving_average:
        raise InputError("optimizer.use_moving_average is true; allowed: false")
    if not config.train_config.num_steps:
        raise InputError("train_config.num_steps is 0; set --steps")


def check_examples(
    files: list[str], num_classes: int, what: str, label_map: str, max_damaged: int = 0
) -> None:
    """Raises InputError if there are no examples, or a class is unknown to the head or named differently."""
    index, names = RecordIndex(files), records.label_map_names(label_map)
    if not len(index):
        raise InputError(f"{what} data {files[0]!r} contains no examples")
    for number in range(min(len(index), _EXAMPLES_CHECKED)):
        try:
            data = index.read(number)
        except DamagedRecord:
            max_damaged -= 1
            if max_damaged < 0:
                raise
            continue
        example = records.parse_example(data, f"{what} record {number + 1}")
        classes.check_texts(example, names, f"label map {label_map!r}")
        wrong = [int(c) for c in example.classes if not 1 <= c <= num_classes]
        if wrong:
            raise InputError(
                f"{what} image {example.image_id!r} has class {wrong[0]}; "
                f"allowed by the head: 1 to {num_classes}"
            )


def _with_preset(job: Job, train_files: list[str]) -> Overrides:
    """Returns the overrides, with unset values filled in from the preset."""
    if job.preset is None:
        return job.overrides
    derived = presets.derive(job.preset, len(RecordIndex(train_files)))
    given = {
        field.name: value
        for field in dataclasses.fields(Overrides)
        if (value := getattr(job.overrides, field.name)) is not None
    }
    return dataclasses.replace(derived, **given)


def _base(job: Job) -> PipelineConfig | None:
    """Returns the given config, otherwise the folder's own; None if a config has to be generated."""
    if job.pipeline_config is not None:
        return pipeline_config.load(job.pipeline_config)
    if job.overrides.architecture is None and (Path(job.model_dir) / model_dir.CONFIG).exists():
        return model_dir.load(job.model_dir)
    return None


def _files(data: str | None, split: str, reader: Any) -> list[str]:
    if data is not None:
        return _absolute(records.resolve(data, split))
    patterns = reader.tf_record_input_reader.input_path if reader else []
    return _absolute([file for pattern in patterns for file in records.resolve(pattern, split)])


def _absolute(files: list[str]) -> list[str]:
    """Makes paths absolute, so that the saved config works from any directory; URLs stay unchanged."""
    return [file if "://" in file else os.path.abspath(file) for file in files]


def _eval_files(job: Job, base: PipelineConfig | None) -> list[str]:
    reader = base.eval_input_reader[0] if base and base.eval_input_reader else None
    data = job.eval_data
    if data is None and job.train_data is not None and os.path.isdir(job.train_data):
        data = job.train_data
    try:
        files = _files(data, "val", reader)
    except InputError:
        if job.eval_data is not None or job.needs_eval:
            raise
        return []
    if not files and job.needs_eval:
        raise InputError("--eval_data is required: a converted data folder or a pattern of TFRecord files")
    return files


def _label_map(base: PipelineConfig | None, train_files: list[str], train_data: str | None) -> str:
    """Returns the label map beside the shards, or the config's own if the config also names the data."""
    if base is not None and train_data is None and base.train_input_reader.label_map_path:
        return base.train_input_reader.label_map_path
    return records.label_map_path(train_files)
