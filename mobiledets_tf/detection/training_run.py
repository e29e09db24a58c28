"""A complete training run: checks the data and config, reads initial weights, trains and evaluates."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from mobiledets_tf import files
from mobiledets_tf.compat import tf
from mobiledets_tf.data import classes, records
from mobiledets_tf.detection import (
    best,
    evaluate,
    initial_weights,
    model_dir,
    pipeline_config,
    train,
    training_config,
)
from mobiledets_tf.detection.pipeline_config import PipelineConfig
from mobiledets_tf.detection.training_config import Job
from mobiledets_tf.interrupts import StopRequest
from mobiledets_tf.replicas import Replicas
from mobiledets_tf.weights import checkpoints, imported_weights
from mobiledets_tf.weights.imported_weights import Account


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a training run that are not part of its config.

    Attributes:
      seed: seed of weights, shuffling and augmentation.
      evaluates: whether every checkpoint is evaluated and the best one is kept.
      early_stop: number of consecutive evaluations without a better AP after which training ends; None
        disables early stopping.
      cache: whether decoded training images are kept in memory.
    """

    seed: int = 0
    evaluates: bool = True
    early_stop: int | None = None
    cache: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """Result of a training run.

    Attributes:
      step: step of the last checkpoint.
      metrics: the metrics of each evaluated checkpoint, in order of step; empty on all workers but the
        chief.
      table: lines about each class from the last evaluation of this run.
      best: prefix of the checkpoint with the best AP, or None.
    """

    step: int
    metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    table: list[str] = dataclasses.field(default_factory=list)
    best: str | None = None


def run(
    job: Job, options: Options, strategy: tf.distribute.Strategy, init_from: Callable[[], str] | None = None
) -> Result:
    """Trains a detector, or resumes a training run, and evaluates its checkpoints.

    Args:
      job: the user's input, from which the config is made.
      options: further options.
      strategy: a tf.distribute strategy.
      init_from: returns the path of the weights to start from; called only if the run has no checkpoint
        of its own yet. None starts from newly initialised weights, or from those that the config names.

    Raises:
      InputError: the data, the config, the weights or the folder are invalid or don't fit together.
      CheckFailed: a loss is not finite for the second time, or another worker has ended.
      KeyboardInterrupt: a stop was requested; the state has been saved.
    """
    workers = Replicas(strategy)
    config, label_map = training_config.train_config(job)
    workers.check_batch(config.train_config.batch_size)
    _warn_of_mirrors(config, label_map)
    initial = None
    if init_from is not None and not checkpoints.kept(job.model_dir):
        initial = initial_weights.read(init_from(), config, label_map, options.seed)
        print("\n".join(initial.summary()), flush=True)
    if job.preset:
        print(text_format.MessageToString(config), flush=True)
    # Every worker writes these files: writing the same content twice is harmless, whereas a worker that
    # relied on the chief's files could read them too early.
    model_dir.start(job.model_dir, config, label_map, options.seed)
    if initial is not None and workers.is_chief:
        files.write_artefact(Path(job.model_dir) / imported_weights.ACCOUNT, initial.to_dict())
    step, watch = _train(job, options, strategy, workers, initial)
    if watch is None or not workers.is_chief:
        return Result(step)
    table = [] if watch.last is None else watch.last.table()
    kept = next(iter(best.find(job.model_dir)), None)
    return Result(step, evaluate.read_metrics(job.model_dir), table, kept)


def _train(
    job: Job, options: Options, strategy: tf.distribute.Strategy, workers: Replicas, initial: Account | None
) -> tuple[int, best.Watch | None]:
    """Returns the last step, and the evaluations if there are any."""
    with StopRequest() as stop:
        watch = None
        if options.evaluates:
            # A chief must not abandon its evaluation while other workers wait for it.
            end = (lambda: _end_if(stop)) if workers.alone else (lambda: None)
            watch = best.Watch(job.model_dir, options.early_stop, end)
        loop = train.Options(options.seed, initial, job.max_damaged_records, options.cache, watch)
        return train.train(job.model_dir, loop, strategy, stop), watch


def _end_if(stop: StopRequest) -> None:
    """Interrupts an evaluation if a stop was requested; the run was saved before the evaluation."""
    if stop.requested:
        raise KeyboardInterrupt


def _warn_of_mirrors(config: PipelineConfig, label_map: str) -> None:
    names = records.read_label_map(label_map).values()
    found = classes.told_by_side(names) if pipeline_config.mirrors(config) else []
    if found:
        what = classes.mirror_warning(found, len(names))
        print(
            f"warning: random_horizontal_flip trains on mirror images; {what} (--norandom_flip turns it off)",
            file=sys.stderr,
        )
