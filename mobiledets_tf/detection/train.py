"""Training with the Object Detection API's own loop: progress, seeds, resuming."""

import contextlib
import os
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mobiledets_tf import compat
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.detection import checkpoints, meta_architecture, model_dir, network_settings
from mobiledets_tf.errors import CheckFailed, InputError

compat.enable_object_detection()

from object_detection import model_lib_v2  # noqa: E402

# Losses are fetched and shown once for so many steps.
_LOG_INTERVAL = 10
# A compiled loop over several steps holds the step twice, which costs half a minute of tracing:
# not worth it for a short training.
_LONG_TRAINING = 10_000
_MAX_CHECKPOINT_INTERVAL = 1000
# The first of them holds the fresh weights.
CHECKPOINTS_KEPT = 6


@dataclass(frozen=True)
class Leg:
    """A part of a training that ends with a checkpoint: `goal` is a step of the whole."""

    goal: int
    log_interval: int
    checkpoint_interval: int


def plan(start: int, steps: int) -> list[Leg]:
    """Splits a training so that its last step is checkpointed.

    The API's loop logs every n steps and saves every m steps, nothing at the end: both have to
    divide the steps that a leg has. An odd rest becomes a leg of its own.
    """
    if steps <= start:
        return []
    interval = min(_MAX_CHECKPOINT_INTERVAL, max(1, steps // (CHECKPOINTS_KEPT - 1)))
    if interval > _LOG_INTERVAL:
        interval -= interval % _LOG_INTERVAL
    whole = (steps - start) // interval * interval
    legs = []
    for goal, every in ((start + whole, interval), (steps, steps - start - whole)):
        if every and goal > start:
            legs.append(Leg(goal, _largest_divisor(every, _LOG_INTERVAL), every))
    return legs


def _largest_divisor(value: int, limit: int) -> int:
    return next(divisor for divisor in range(min(value, limit), 0, -1) if value % divisor == 0)


def train(folder: str | os.PathLike, seed: int) -> int:
    """Trains in a folder that `model_dir.start` has filled, from its latest checkpoint on.

    Args:
      folder: the model folder.
      seed: of weights, shuffling and augmentation.

    Returns:
      The step of the last checkpoint.

    Raises:
      InputError: the checkpoints there are of another network, or no space is left.
      CheckFailed: a loss is not finite.
      KeyboardInterrupt: the last checkpoint stays; a second call goes on from it.
    """
    folder = os.fspath(folder)
    meta_architecture.install()
    config = model_dir.load(folder)
    latest = tf.train.latest_checkpoint(folder)
    start = checkpoints.step(latest) if latest else 0
    _check_checkpoints(config, latest)
    steps = config.train_config.num_steps
    for leg in plan(start, steps):
        # Another part of a training draws other numbers.
        keras.utils.set_random_seed((seed + start) % 2**32)
        _run(folder, leg, start, steps, config.train_config.batch_size)
        start = leg.goal
    return start


def _run(folder: str, leg: Leg, start: int, steps: int, batch_size: int) -> None:
    with _progress(leg, start, steps, batch_size), compat.quiet(), _disk_errors():
        model_lib_v2.train_loop(
            pipeline_config_path=str(Path(folder) / model_dir.CONFIG),
            model_dir=folder,
            train_steps=leg.goal,
            checkpoint_every_n=leg.checkpoint_interval,
            checkpoint_max_to_keep=CHECKPOINTS_KEPT,
            num_steps_per_iteration=leg.log_interval if steps >= _LONG_TRAINING else 1,
            # Images of every iteration would cost more disk than the checkpoints.
            record_summaries=False,
        )


def _check_checkpoints(config, latest: str | None) -> None:
    """Restoring ignores what doesn't fit, so what doesn't fit is found before."""
    fine_tune = config.train_config.fine_tune_checkpoint
    if latest is None and not fine_tune:
        return
    network = meta_architecture.build_network(network_settings.read(config.model.ssd))
    weights = {weight.name: weight for weight in network.weights}
    if latest is not None:
        checkpoints.check(weights, latest)
    else:
        kind = config.train_config.fine_tune_checkpoint_type or "detection"
        checkpoints.check(meta_architecture.fine_tune_weights(weights, kind), fine_tune)


@contextlib.contextmanager
def _progress(leg: Leg, start: int, steps: int, batch_size: int) -> Iterator[None]:
    """Shows a progress bar in place of the step lines that the loop logs.

    The loop formats its losses with `pprint.pformat` every `LOG_EVERY` steps: that call is
    where the numbers can be had without a copy of the loop.
    """
    every = leg.log_interval
    bar = tqdm(total=steps, initial=start, unit="step", desc="train", dynamic_ncols=True)
    bar.set_postfix_str("building the graph")
    last = time.perf_counter()

    def show(losses: dict[str, np.ndarray], **_) -> str:
        nonlocal last
        now, before = time.perf_counter(), last
        last = now
        bar.update(every)
        _check_finite(losses, bar.n)
        bar.set_postfix_str(
            f"{every * batch_size / (now - before):.0f} images/s, loss {losses['Loss/total_loss']:.3f} "
            f"(class {losses['Loss/classification_loss']:.3f}, box {losses['Loss/localization_loss']:.3f}), "
            f"rate {losses['learning_rate']:.3g}"
        )
        return ""

    with (
        bar,
        compat.replaced(model_lib_v2, "LOG_EVERY", every),
        compat.replaced(model_lib_v2, "pprint", types.SimpleNamespace(pformat=show)),
    ):
        yield


def _check_finite(losses: dict[str, np.ndarray], step: int) -> None:
    for name, value in losses.items():
        if not np.isfinite(value):
            raise CheckFailed(f"{name} is {value} at step {step}: lower --learning_rate, or check the boxes")


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        if "No space left" not in str(error):
            raise
        raise InputError("no space left on the device of model_dir; the last checkpoint is kept") from error
