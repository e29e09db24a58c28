"""The search: sample, train, pay, learn; saved, resumable, reported."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobiledets_tf import architecture as architectures
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.data import records
from mobiledets_tf.detection import pipeline_config
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.files import read_json, write_artefact, write_json
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.models.supernet import Supernet
from mobiledets_tf.search import data, report
from mobiledets_tf.search.controller import Controller
from mobiledets_tf.search.reward import DebiasedAverage, absolute_reward
from mobiledets_tf.search.schedule import Schedule, warm_up
from mobiledets_tf.search.step import SharedStep
from mobiledets_tf.search_space import decode

SETTINGS, STATE = "settings.json", "search_state.json"
_STREAM = 1 << 16


@dataclasses.dataclass(frozen=True)
class Search:
    """Everything that defines a search.

    Attributes:
      train_data: converted folder or TFRecord pattern.
      model_dir: where it is written.
      latency: the cost model; its space, image size and classes are those of the search.
      target: cost to reach, in the model's unit.
      schedule: see `Schedule`.
      batch_size: images a step; quality is taken on `quality_batch` held-out images.
      beta: weight of the cost in the reward, below 0.
      metric: `AP` or `AP50`.
      seed: of everything random.
      checkpoint_every: steps.
    """

    train_data: str
    model_dir: str
    latency: LatencyModel
    target: float
    schedule: Schedule
    batch_size: int = 16
    quality_batch: int = 32
    beta: float = -0.1
    metric: str = "AP"
    seed: int = 0
    checkpoint_every: int = 50

    def settings(self) -> dict[str, Any]:
        """What must not change between a start and a resume, JSON-ready."""
        return {
            "search_space": self.latency.space.options() | {"hash": self.latency.space.hash},
            "device": self.latency.device,
            "image_size": list(self.latency.image_size),
            "num_classes": self.latency.num_classes,
            "latency_target": self.target,
            "train_data": self.train_data,
            "batch_size": self.batch_size,
            "quality_batch": self.quality_batch,
            "beta": self.beta,
            "metric": self.metric,
            "seed": self.seed,
            **dataclasses.asdict(self.schedule),
        }


def run(search: Search) -> architectures.Architecture:
    """Runs a search from its last checkpoint to its end and writes its three files.

    Raises:
      InputError: data, head and latency model don't fit, or the folder holds a search with
        other settings.
      CheckFailed: a loss is not finite.
      KeyboardInterrupt: after the state was saved.
    """
    files = records.resolve(search.train_data, "train")
    label_map = records.label_map_path(files)
    classes = len(records.read_label_map(label_map))
    if classes != search.latency.num_classes:
        raise InputError(
            f"{label_map} has {classes} classes; the latency model is of {search.latency.num_classes}"
        )
    _start(search)
    keras.utils.set_random_seed(search.seed)
    return _Run(search, files, label_map).finish()


def _start(search: Search) -> None:
    """Writes the settings, or compares them with those of the search that is there."""
    path = Path(search.model_dir) / SETTINGS
    settings = search.settings()
    if not path.exists():
        write_json(path, settings)
        return
    before = read_json(path, "search settings")
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        shown = "; ".join(f"{key} was {before.get(key)!r}, is {settings[key]!r}" for key in changed)
        raise InputError(f"{search.model_dir} holds a search with other settings: {shown}")


class _Run:
    def __init__(self, search: Search, files: list[str], label_map: str):
        self.search = search
        self.space = search.latency.space
        latency = search.latency
        config = pipeline_config.generate(
            pipeline_config.Overrides(
                architecture="edgetpu", num_classes=latency.num_classes, image_size=latency.image_size
            )
        )
        self.supernet = Supernet(self.space, latency.num_classes, latency.image_size)
        self.shared = SharedStep(self.supernet, config.model)
        self.controller = Controller(self.space)
        self.baseline = DebiasedAverage()
        self.rng = np.random.default_rng(search.seed)
        self.history: list[dict[str, float]] = []
        self._checkpoint = tf.train.Checkpoint(
            weights={name: list(op.weights) for name, op in self.supernet.ops.items()},
            optimizer=self.shared.optimizer,
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, search.model_dir, 2, checkpoint_name="search"
        )
        self.step = self._resume()
        sides = ((search.batch_size, False), (search.quality_batch, True))
        self._train, self._held_out = (
            iter(
                data.batches(
                    files, label_map, config.model, self.shared.preprocess, size, held_out,
                    (search.seed + self.step * _STREAM) % 2**31,
                )
            )
            for size, held_out in sides
        )  # fmt: skip

    def finish(self) -> architectures.Architecture:
        steps = self.search.schedule.steps
        # The traced graph holds every option of every layer: optimising it as a whole takes longer
        # than a short search gains (80 s against 26 s for the first step, equal steps).
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        with tqdm(total=steps, initial=self.step, unit="step", desc="search", dynamic_ncols=True) as bar:
            try:
                while self.step < steps:
                    row = self._one_step()
                    bar.set_postfix_str(
                        f"loss {row['loss']:.2f}, {self.search.metric} {row['quality']:.3f}, "
                        f"cost/target {row['cost'] / self.search.target:.2f}, entropy {row['entropy']:.2f}"
                    )
                    bar.update()
                    if self.step % self.search.checkpoint_every == 0:
                        self._save()
            except KeyboardInterrupt:
                self._save()
                raise
        self._save()
        return self._report()

    def _one_step(self) -> dict[str, float]:
        search, step, schedule = self.search, self.step, self.search.schedule
        decisions = self.controller.sample(self.rng)
        trained = warm_up(self.space, decisions, schedule, step, self.rng)
        self.shared.optimizer.learning_rate = schedule.weight_learning_rate(step)
        images, labels = next(self._train)
        losses = self.shared.train(images, labels, tf.constant(trained))
        loss = float(losses["total_loss"])
        if not math.isfinite(loss):
            parts = ", ".join(f"{name} {float(value)}" for name, value in losses.items())
            raise CheckFailed(f"loss is not finite at step {step} ({parts}): lower --learning_rate")
        cost = search.latency.predict_one(decisions)
        rate, quality, reward = schedule.controller_learning_rate(step), 0.0, 0.0
        if rate > 0:
            quality = self.shared.quality(*next(self._held_out), decisions, search.metric)
            reward = absolute_reward(quality, cost, search.target, search.beta)
            # The first reward has nothing to be compared with.
            advantage = reward - self.baseline.value if self.baseline.weight else 0.0
            self.baseline.update(reward)
            self.controller.update(decisions, advantage, rate)
        self.step += 1
        row = {"step": self.step, "loss": loss, "quality": quality, "cost": cost, "reward": reward}
        self.history.append(row | {"entropy": self.controller.entropy()})
        return self.history[-1]

    def _save(self) -> None:
        """Weights first: a state without its checkpoint would be taken up wrongly."""
        self._manager.save(self.step)
        state = {
            "step": self.step,
            "controller": self.controller.state(),
            "baseline": [self.baseline.biased, self.baseline.weight],
            "random": self.rng.bit_generator.state,
            "history": self.history,
        }
        write_json(Path(self.search.model_dir) / STATE, state)

    def _resume(self) -> int:
        path = Path(self.search.model_dir) / STATE
        if not path.exists():
            return 0
        state = read_json(path, "search state")
        checkpoint = str(Path(self.search.model_dir) / f"search-{state['step']}")
        self._checkpoint.restore(checkpoint).assert_existing_objects_matched()
        self.controller.restore(state["controller"])
        self.baseline.biased, self.baseline.weight = state["baseline"]
        self.rng.bit_generator.state = state["random"]
        self.history = state["history"]
        return state["step"]

    def _report(self) -> architectures.Architecture:
        search = self.search
        found = decode(self.space, self.controller.best())
        folder = Path(search.model_dir)
        summary = report.summarise(search, found, self.controller, self.history)
        report.draw(folder / "search_report.png", search, self.history)
        write_artefact(folder / "search_report.json", summary)
        architectures.save(found, folder / "architecture.json")
        return found
