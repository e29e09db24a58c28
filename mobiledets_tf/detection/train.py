"""Training loop around the Object Detection API's model, input, losses and training step.

A run that was stopped, was killed or failed resumes from its last checkpoint with the same order
of images and the same learning rate.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobiledets_tf import compat
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.data.records import require_decodable
from mobiledets_tf.detection import (
    augmentation,
    meta_architecture,
    model_dir,
    network_settings,
    pipeline_config,
)
from mobiledets_tf.detection.ordered_input import Records, training_order
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.folder_lock import locked
from mobiledets_tf.interrupts import StopRequest
from mobiledets_tf.models.fresh_start import zero_residual_scales
from mobiledets_tf.replicas import Replicas, lost_workers
from mobiledets_tf.weights import checkpoints, imported_weights

compat.enable_object_detection()

from object_detection import inputs, model_lib_v2  # noqa: E402
from object_detection.builders import optimizer_builder  # noqa: E402

# Number of steps after which losses are fetched and shown.
_LOG_INTERVAL = 10
_MAX_CHECKPOINT_INTERVAL = 1000
# The first of these checkpoints contains the initial weights.
CHECKPOINTS_KEPT = 6
_TOTAL = "Loss/total_loss"
# Number of augmented images written to TensorBoard.
_SHOWN_IMAGES = 8


@dataclass(frozen=True)
class Options:
    """Options of a training run that are not part of the folder's pipeline config.

    Attributes:
      seed: seed of the initial weights, the order of images and the augmentation.
      initial: weights to start from if the folder has no checkpoint.
      max_damaged_records: number of damaged TFRecords to skip before failing.
      cache: whether decoded images are kept in memory.
      on_checkpoint: called with the prefix of each checkpoint after it is written, by the chief only
        if there are several workers; training ends if it returns true.
    """

    seed: int = 0
    initial: imported_weights.Account | None = None
    max_damaged_records: int = 0
    cache: bool = False
    on_checkpoint: Callable[[str], bool] | None = None


def checkpoint_interval(steps: int) -> int:
    """Returns the number of steps between checkpoints: a fifth of the run, at most 1,000 steps."""
    interval = min(_MAX_CHECKPOINT_INTERVAL, max(1, steps // (CHECKPOINTS_KEPT - 1)))
    return interval - interval % _LOG_INTERVAL if interval > _LOG_INTERVAL else interval


def train(
    folder: str | os.PathLike,
    options: Options,
    strategy: tf.distribute.Strategy | None = None,
    stop: StopRequest | None = None,
) -> int:
    """Trains in a folder that `model_dir.start` has filled, starting from its latest checkpoint.

    Args:
      folder: the model folder.
      options: options of the run.
      strategy: a `tf.distribute` strategy; default: one device.
      stop: stop request that is polled after each step and that the caller has already entered as a
        context manager; default: one of this function's own.

    Returns:
      The step of the last checkpoint.

    Raises:
      InputError: the folder's checkpoints belong to another network, a record is damaged, the disk is
        full, or another run is training in the folder.
      CheckFailed: a loss is not finite for the second time, or another worker has ended.
      KeyboardInterrupt: a stop was requested; the state has been saved.
    """
    strategy = strategy or tf.distribute.get_strategy()
    try:
        chief = Replicas(strategy).is_chief
        with lost_workers(), locked(folder) if chief else contextlib.nullcontext():
            run = _Run(os.fspath(folder), options, strategy)
            with compat.quiet(), _known_errors(run.records):
                if stop is not None:
                    return run.finish(stop)
                with StopRequest() as own:
                    return run.finish(own)
    finally:
        # The API's training step sets Keras' learning phase to training for the whole process.
        with compat.quiet():
            keras.backend.set_learning_phase(False)


class _Run:
    """One process of a training run."""

    def __init__(self, folder: str, options: Options, strategy: Any):
        self._folder, self._options, self._strategy = folder, options, strategy
        self._replicas = Replicas(strategy)
        self._config = model_dir.load(folder)
        self._train = self._config.train_config
        self._network = network_settings.read(self._config.model.ssd)
        self._check_checkpoints()
        paths = list(self._config.train_input_reader.tf_record_input_reader.input_path)
        side = max(self._network.image_size)
        # Twice the input size, so that a random crop is still about as large as the input.
        cache_side = 2 * side if options.cache else None
        self.records = Records(paths, options.max_damaged_records, cache_side)
        latest = tf.train.latest_checkpoint(folder)
        keras.utils.set_random_seed(options.seed % 2**32)
        with strategy.scope(), _policy(self._train.use_bfloat16):
            self._build()
        self._manager = tf.train.CheckpointManager(
            self._checkpoint,
            model_lib_v2.get_filepath(strategy, folder),
            max_to_keep=CHECKPOINTS_KEPT if self._replicas.is_chief else 1,
        )
        self._writer = tf.summary.create_file_writer(
            model_lib_v2.get_filepath(strategy, str(Path(folder) / "train"))
        )
        self._pending: list[tuple[int, dict[str, tf.Tensor]]] = []
        self._recovered = False
        if latest:
            self._restore(latest)
        else:
            if options.initial is not None:
                imported_weights.assign(options.initial, self._model.named_weights)
            elif not self._train.fine_tune_checkpoint:
                zero_residual_scales(self._network.architecture, self._model.named_weights)
            self._save()

    def _check_checkpoints(self) -> None:
        """Checks that checkpoints fit the network, because restoring ignores weights that don't."""
        latest = tf.train.latest_checkpoint(self._folder)
        fine_tune = self._train.fine_tune_checkpoint
        if latest is None and not fine_tune:
            return
        network = meta_architecture.build_network(self._network)
        weights = {weight.name: weight for weight in network.weights}
        if latest is not None:
            checkpoints.check(weights, latest)
        else:
            kind = self._train.fine_tune_checkpoint_type or "detection"
            checkpoints.check(meta_architecture.fine_tune_weights(weights, kind), fine_tune)

    def _build(self) -> None:
        self._model = meta_architecture.build_detection_model(
            self._config.model, True, quantization_aware=pipeline_config.is_quantization_aware(self._config)
        )
        self._step = tf.Variable(
            0,
            trainable=False,
            dtype=tf.int64,
            name="global_step",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self._optimizer, (rate,) = optimizer_builder.build(self._train.optimizer, global_step=self._step)
        self._rate = rate if callable(rate) else lambda: rate
        self._checkpoint = tf.train.Checkpoint(step=self._step, model=self._model, optimizer=self._optimizer)
        if self._train.fine_tune_checkpoint:
            kind = self._train.fine_tune_checkpoint_type or "detection"
            tf.train.Checkpoint(**self._model.restore_from_objects(kind)).restore(
                self._train.fine_tune_checkpoint
            ).expect_partial().assert_existing_objects_matched()
        self._trained = tf.function(self._one_step)

    @property
    def _now(self) -> int:
        """The current step."""
        # int() is not defined for a mirrored variable.
        return int(self._step.read_value())

    def _one_step(self, iterator: Any) -> dict[str, tf.Tensor]:
        def replica(features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            losses = model_lib_v2.eager_train_step(
                self._model,
                features,
                labels,
                self._train.unpad_groundtruth_tensors,
                self._optimizer,
                training_step=self._step,
                add_regularization_loss=self._train.add_regularization_loss,
                clip_gradients_value=self._train.gradient_clipping_by_norm or None,
                num_replicas=self._strategy.num_replicas_in_sync,
            )
            self._step.assign_add(1)
            return losses

        losses = self._strategy.run(replica, args=next(iterator))
        return {
            name: self._strategy.reduce(tf.distribute.ReduceOp.SUM, loss, axis=None)
            for name, loss in losses.items()
        }

    def _batches(self) -> Iterator:
        """Returns an iterator over batches that starts at the current step."""

        def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
            return compat.without_autotune(
                inputs.train_input(
                    self._train,
                    self._config.train_input_reader,
                    self._config.model,
                    self._model,
                    input_context=context,
                )
            )

        with training_order(self.records, self._options.seed, self._now), self._strategy.scope():
            return iter(self._strategy.distribute_datasets_from_function(dataset))

    def finish(self, stop: StopRequest) -> int:
        """Trains to the end and returns the step reached."""
        steps = self._train.num_steps
        if self._ends_here() or self._now >= steps:
            return self._now
        interval = checkpoint_interval(steps)
        self._show_augmented()
        batches, first = self._batches(), self._now
        with self._progress(steps) as bar:
            bar.set_postfix_str("building the graph")
            while (step := self._now) < steps:
                self._pending.append((step + 1, dict(self._trained(batches), learning_rate=self._rate())))
                step += 1
                if step == first + 1:
                    # The first step builds the graph, so its duration must not count in the time estimate.
                    bar.unpause()
                bar.update()
                saving = step % interval == 0 or step == steps
                flushing = saving or step % _LOG_INTERVAL == 0
                # All workers have to stop at the same step. Agreeing on it costs time, so they do it only
                # when losses are flushed.
                stopped = stop.requested
                if not self._replicas.alone:
                    stopped = flushing and self._replicas.any_worker(stopped)
                if flushing or stopped:
                    faulty = self._flush(bar)
                    if faulty:
                        batches = self._recover(faulty, bar)
                        continue
                if saving or stopped:
                    self._save()
                    if stopped:
                        raise KeyboardInterrupt
                    if self._ends_here():
                        break
        self._clean()
        return self._now

    def _show_augmented(self) -> None:
        """Writes the first augmented images of a new run to TensorBoard."""
        if self._now or not self._train.data_augmentation_options or not self._replicas.is_chief:
            return
        features, labels = (self._local(part) for part in next(self._batches()))
        with self._writer.as_default(step=0):
            shown = augmentation.drawn_batch(features, labels, _SHOWN_IMAGES)
            tf.summary.image("augmented", shown, max_outputs=_SHOWN_IMAGES)
        self._writer.flush()

    def _local(self, part: dict[str, Any]) -> dict[str, Any]:
        """Returns the part of a batch that the first replica receives."""
        return {name: self._strategy.experimental_local_results(value)[0] for name, value in part.items()}

    def _ends_here(self) -> bool:
        """Passes the latest checkpoint to `on_checkpoint`; returns whether training should end with it."""
        if self._options.on_checkpoint is None or self._now == 0:
            return False
        chief = self._replicas.is_chief
        # The other workers wait here for the chief's result.
        return self._replicas.any_worker(
            chief and self._options.on_checkpoint(self._manager.latest_checkpoint)
        )

    @contextlib.contextmanager
    def _progress(self, steps: int) -> Iterator[tqdm]:
        batch = self._train.batch_size
        done = self._now * batch
        show = {"unit": "images", "desc": "train", "dynamic_ncols": True}
        show["disable"] = not self._replicas.is_chief
        with tqdm(total=steps * batch, initial=done, **show) as bar:
            plain = bar.update
            bar.update = lambda count=1: plain(count * batch)
            yield bar

    def _flush(self, bar: tqdm) -> str | None:
        """Writes the losses since the last flush; returns a description of the first faulty step, or None."""
        pending, self._pending = self._pending, []
        with self._writer.as_default():
            for step, losses in pending:
                values = {name: float(np.asarray(value)) for name, value in losses.items()}
                part = faulty_part(values)
                if part is not None:
                    return self._describe(step, part, values[part])
                for name, value in values.items():
                    tf.summary.scalar(name, value, step=step)
        self._writer.flush()
        if pending:
            bar.set_postfix_str(
                f"step {pending[-1][0]}, loss {values[_TOTAL]:.3f} (class "
                f"{values['Loss/classification_loss']:.3f}, box {values['Loss/localization_loss']:.3f}), "
                f"rate {values['learning_rate']:.3g}"
            )
        return None

    def _describe(self, step: int, part: str, value: float) -> str:
        ids = self.records.image_ids(step - 1, self._train.batch_size, self._options.seed)
        return f"{part} is {value} at step {step}, images {', '.join(ids)}"

    def _recover(self, faulty: str, bar: tqdm) -> Iterator:
        """Restores the last checkpoint, at most once per run, and returns the batches that follow it.

        Raises:
          CheckFailed: a checkpoint has already been restored.
        """
        hint = "lower --learning_rate, or check the boxes of these images"
        if self._recovered:
            raise CheckFailed(f"{faulty}, again after resuming from the checkpoint: {hint}")
        self._recovered = True
        self._restore(self._manager.latest_checkpoint)
        tqdm.write(f"{faulty}; resuming from the checkpoint of step {self._now}")
        bar.n = self._now * self._train.batch_size
        return self._batches()

    def _restore(self, checkpoint: str) -> None:
        status = self._checkpoint.restore(checkpoint)
        # The optimizer creates its slot variables only in the first step, so they have no match yet.
        status.expect_partial()

    def _save(self) -> None:
        self._manager.save()

    def _clean(self) -> None:
        """Deletes the temporary files of workers other than the chief, which also have to save."""
        for path in (
            self._manager.directory,
            model_lib_v2.get_filepath(self._strategy, str(Path(self._folder) / "train")),
        ):
            model_lib_v2.clean_temporary_directories(self._strategy, path)


def faulty_part(losses: dict[str, float]) -> str | None:
    """Returns the name of a loss term that is not finite, or None; the total only if no other term is."""
    faulty = [name for name, value in losses.items() if not np.isfinite(value)]
    return min(faulty, key=lambda name: name == _TOTAL) if faulty else None


@contextlib.contextmanager
def _policy(bfloat16: bool) -> Iterator[None]:
    """Makes layers created in this context compute in bfloat16 with float32 weights, if `bfloat16`."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if bfloat16 else before)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


@contextlib.contextmanager
def _known_errors(records: Records) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        if records.failure is not None:
            raise InputError(f"{records.failure}; --max_damaged_records=N skips up to N of them") from error
        if "No space left" not in str(error):
            require_decodable(records.files)
            raise
        raise InputError("no space left on the disk of model_dir; the last checkpoint is kept") from error
