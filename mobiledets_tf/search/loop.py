"""The search: propose, train, pay, learn; saved, resumable, reported."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobiledets_tf import architecture as architectures
from mobiledets_tf.compat import keras, quiet, tf
from mobiledets_tf.data import records
from mobiledets_tf.detection import pipeline_config
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.files import write_artefact
from mobiledets_tf.folder_lock import locked
from mobiledets_tf.interrupts import StopRequest
from mobiledets_tf.models.supernet import Supernet
from mobiledets_tf.replicas import Replicas, lost_workers
from mobiledets_tf.search import data, pictures, report, state
from mobiledets_tf.search.agent import make_agent
from mobiledets_tf.search.archive import Archive, Candidate
from mobiledets_tf.search.journal import Journal
from mobiledets_tf.search.schedule import warm_up
from mobiledets_tf.search.settings import Search, keep
from mobiledets_tf.search.step import SharedStep
from mobiledets_tf.search.summaries import Summaries
from mobiledets_tf.search_space import SearchSpace, decode

SETTINGS = "settings.json"
# More dropped steps than this share end the search.
MAX_DROPPED = 0.05
# Columns of the policy's picture.
_SNAPSHOTS = 200
# Held-out batches that a finalist is evaluated on, at most; and finalists of a device.
_FINAL_BATCHES, _FINALISTS = 4, 8
# A report needs no more of the random numbers than that they are not those of a step.
_AFTER = 1 << 40


def run(search: Search, strategy: tf.distribute.Strategy | None = None) -> architectures.Architecture:
    """Runs a search from its last saved state to its end and writes its files.

    `architecture.json` is the network of the first device that is steered by; with several
    devices each has an `architecture_DEVICE.json` too.

    Args:
      search: what to do.
      strategy: of tf.distribute; each replica samples its own network.

    Raises:
      InputError: data, head and latency model don't fit, the folder holds a search with other
        settings, or another search is running in it.
      CheckFailed: too many steps were dropped because a loss or reward was not finite, or another
        worker has ended.
      KeyboardInterrupt: after the state was saved.
    """
    files = records.resolve(search.train_data, "train")
    label_map = records.label_map_path(files)
    classes = len(records.read_label_map(label_map))
    if classes != search.latency.num_classes:
        raise InputError(
            f"{label_map} has {classes} classes; the latency model is of {search.latency.num_classes}"
        )
    strategy = strategy or tf.distribute.get_strategy()
    settings = search.settings() | {"replicas": strategy.num_replicas_in_sync}
    keep(Path(search.model_dir) / SETTINGS, settings, "search")
    set_seed(search.seed)
    chief = Replicas(strategy).is_chief
    with lost_workers(), locked(search.model_dir) if chief else contextlib.nullcontext():
        return _Run(search, strategy, files, label_map).finish()


def set_seed(seed: int) -> None:
    """Of weights. Not 0: TensorFlow then asks whether the seed of an epoch, a tensor, is 0 too."""
    keras.utils.set_random_seed(seed + 1)


def build_step(
    space: SearchSpace,
    image_size: tuple[int, int],
    num_classes: int,
    execution: str = "sliced",
    weight_update: str = "lazy",
    strategy: tf.distribute.Strategy | None = None,
) -> tuple[SharedStep, Any]:
    """The supernet with its training step, and the `model` part of the pipeline config it uses."""
    config = pipeline_config.generate(
        pipeline_config.Overrides(architecture="edgetpu", num_classes=num_classes, image_size=image_size)
    )
    # The traced graph holds every option of every layer: optimising it as a whole takes longer
    # than a short search gains (80 s against 26 s for the first step, equal steps).
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

    def make_supernet() -> Supernet:
        return Supernet(space, num_classes, image_size, execution=execution)

    return SharedStep(make_supernet, config.model, weight_update, strategy), config.model


class _Run:
    def __init__(self, search: Search, strategy: tf.distribute.Strategy, files: list[str], label_map: str):
        self.search = search
        latency = search.latency
        self.shared, model_config = build_step(
            latency.space, latency.image_size, latency.num_classes, search.execution, search.weight_update,
            strategy,
        )  # fmt: skip
        self.agents = [make_agent(search, objective) for objective in search.steering]
        self.archives = {objective.device: Archive() for objective in search.objectives}
        self.step = self.dropped = self._drawn = 0
        folder = Path(search.model_dir)
        self._saved = state.checkpoint(self.shared.supernet, self.shared.optimizer)
        self._resume()
        self._main = self.shared.replicas.is_chief
        self.history = Journal(folder / "history.jsonl", self.step) if self._main else None
        self.snapshots = Journal(folder / "policy.jsonl", self.step) if self._main else None
        self._faults = Journal(folder / "dropped.jsonl", self.step) if self._main else None
        self._summaries = Summaries(folder) if self._main else None

        split = data.Split(files)

        def stream(batch_size: int, held_out: bool) -> data.Stream:
            return data.Stream(
                split, label_map, model_config, self.shared.preprocess, batch_size, held_out, search.seed
            )

        self._held_out = stream(search.batch_size * search.rl_batch_multiplier, True)
        self._train_batches = self._iterators(stream(search.batch_size, False), self.step)
        # No reward is taken during the delay, so the held-out batches start after it.
        paid = max(0, self.step - search.schedule.first_paid_step)
        self._quality_batches = self._iterators(self._held_out, paid)

    def _iterators(self, stream: data.Stream, number: int) -> list:
        replicas = self.shared.strategy.num_replicas_in_sync
        return [stream.batches(number, replica, replicas) for replica in self.shared.replicas.local]

    def finish(self) -> architectures.Architecture:
        first, steps = self.step, self.search.schedule.steps
        bar = tqdm(
            total=steps, initial=first, unit="step", desc="search", dynamic_ncols=True,
            disable=not self._main,
        )  # fmt: skip
        with bar, quiet(), StopRequest() as stop:
            while self.step < steps:
                row = self._one_step()
                if self.step == first + 1:
                    # The first step traces the graph: it says nothing of the time that is left.
                    bar.unpause()
                bar.set_postfix_str(self._progress(row), refresh=False)
                bar.update()
                stopped = self.shared.replicas.any_worker(stop.requested)
                if stopped or self.step % self.search.checkpoint_every == 0:
                    self._save()
                if stopped:
                    raise KeyboardInterrupt
        self._save()
        return self._report()

    def _progress(self, row: dict[str, Any]) -> str:
        objective = self._objective(row["device"])
        quality = f", {self.search.metric} {row['quality']:.3f}" if "quality" in row else ""
        dropped = f", {self.dropped} dropped" if self.dropped else ""
        return (
            f"loss {row.get('loss', float('nan')):.2f}{quality}, "
            f"cost/target {row['cost'] / objective.target:.2f}, entropy {row['entropy']:.2f}{dropped}"
        )

    def _objective(self, device: str):
        return next(o for o in self.search.objectives if o.device == device)

    def _one_step(self) -> dict[str, Any]:
        search, step, schedule = self.search, self.step, self.search.schedule
        agent = self.agents[step % len(self.agents)]
        # Random numbers are a function of the step, so a run that goes on draws what it would have.
        rng = np.random.default_rng((search.seed, step))
        space, replicas = search.latency.space, self.shared.strategy.num_replicas_in_sync
        networks = agent.propose(rng, replicas)
        trained = np.stack(
            [warm_up(space, network, schedule, step, rng, search.path_dropout) for network in networks]
        )
        local = self.shared.replicas.local
        batches = [next(iterator) for iterator in self._train_batches]
        losses = self.shared.train(batches, trained[local], schedule.weight_learning_rate(step))
        costs = agent.objective.latency.predict(networks)
        row = {"step": step + 1, "device": agent.objective.device, "cost": float(costs.mean())}
        fault = _fault(losses)
        rate = schedule.controller_learning_rate(step)
        paid = step >= schedule.first_paid_step
        # Batches are taken in step even where the step is dropped: their numbers are those of steps.
        held_out = [next(iterator) for iterator in self._quality_batches] if paid else []
        if fault is None:
            row |= {
                name: float(np.mean([x[name] for x in losses])) for name in losses[0] if name != "applied"
            }
            row["loss"] = row.pop("total_loss")
            if paid:
                fault = self._learn(agent, networks, held_out, rate, row)
        self.step += 1
        if fault is not None:
            ids = [i.decode() for batch in (*batches, *held_out) for i in batch.ids.numpy()]
            self._drop(fault, ids, networks)
        row["entropy"] = agent.controller.entropy()
        self._log(row, agent)
        return row

    def _learn(self, agent, networks, held_out: Sequence[data.Batch], rate: float, row: dict) -> str | None:
        """Takes the quality of each replica's network, pays it and lets the agent learn.

        Returns:
          What was wrong with the reward, or None.
        """
        metric, local = self.search.metric, self.shared.replicas.local
        mine = [
            self.shared.quality([batch], networks[replica], metric)
            for batch, replica in zip(held_out, local, strict=True)
        ]
        qualities = self.shared.replicas.share(mine)
        objective = agent.objective
        costs = objective.latency.predict(networks)
        rewards = np.array([objective.worth(q, c) for q, c in zip(qualities, costs, strict=True)])
        if not np.isfinite(rewards).all():
            return f"reward is {rewards.tolist()} (quality {qualities.tolist()}, cost {costs.tolist()})"
        agent.learn(networks, rewards, rate)
        row |= {"quality": float(np.mean(qualities)), "reward": float(rewards.mean())}
        for other in self.search.objectives:
            for network, quality in zip(networks, qualities, strict=True):
                cost = other.latency.predict_one(network)
                self.archives[other.device].add(
                    Candidate(
                        row["step"], tuple(network.tolist()), float(quality), cost,
                        other.worth(float(quality), cost),
                    )
                )  # fmt: skip
        return None

    def _drop(self, fault: str, ids: list[str], networks: np.ndarray) -> None:
        """Counts a step that changed nothing, says which, and ends the search after too many."""
        self.dropped += 1
        fault = f"step {self.step} dropped: {fault}"
        if self._main:
            self._faults.append(
                {"step": self.step, "fault": fault, "images": ids, "decisions": networks.tolist()}
            )
            tqdm.write(f"{fault}; images {', '.join(ids[:8])}...; see dropped.jsonl", file=sys.stderr)
        if self.dropped > max(1.0, MAX_DROPPED * self.step):
            self._save()
            raise CheckFailed(
                f"{self.dropped} of {self.step} steps dropped, allowed are {MAX_DROPPED:.0%}; "
                f"the last: {fault}; lower --learning_rate, or check the boxes of the images in dropped.jsonl"
            )

    def _log(self, row: dict[str, Any], agent) -> None:
        if not self._main:
            return
        self.history.append(row)
        rates = {"learning_rate": self.search.schedule.weight_learning_rate(self.step - 1)}
        self._summaries.scalars(
            row | rates | {"cost_over_target": row["cost"] / agent.objective.target,
                           "controller_rate": self.search.schedule.controller_learning_rate(self.step - 1)}
        )  # fmt: skip
        every = max(1, self.search.schedule.steps // _SNAPSHOTS)
        if self.step % every == 0 or self.step == self.search.schedule.steps:
            for one in self.agents:
                rounded = [[round(float(p), 4) for p in row] for row in one.controller.probabilities()]
                self.snapshots.append(
                    {"step": self.step, "device": one.objective.device, "probabilities": rounded}
                )

    def _save(self) -> None:
        if not self._main:
            return
        values = {
            "step": self.step,
            "dropped": self.dropped,
            "agents": {agent.objective.device: agent.state() for agent in self.agents},
            "archives": {device: archive.state() for device, archive in self.archives.items()},
        }
        state.save(self.search.model_dir, self._saved, values)
        tenth = 10 * self.step // self.search.schedule.steps
        if tenth > self._drawn:
            # A picture takes about as long as a step: not with every state.
            self._drawn = tenth
            for agent in self.agents:
                device = agent.objective.device
                mine = [s for s in self.snapshots.rows if s["device"] == device]
                self._summaries.policy(self.step, device, self.search.latency.space, mine)

    def _resume(self) -> None:
        values = state.load(self.search.model_dir)
        if values is None:
            return
        state.restore(self.search.model_dir, self._saved, values["step"])
        self.step, self.dropped = values["step"], values["dropped"]
        for agent in self.agents:
            agent.restore(values["agents"][agent.objective.device])
        for device, archive in self.archives.items():
            archive.restore(values["archives"][device])

    def _report(self) -> architectures.Architecture:
        search, folder = self.search, Path(self.search.model_dir)
        space = search.latency.space
        finalists = self._finalists()
        chosen = {device: _chosen(search, self._objective(device), f) for device, f in finalists.items()}
        first = chosen[search.steering[0].device]
        if not self._main:
            return decode(space, first.decisions)
        summary = report.summarise(
            search, self.agents, self.archives, finalists, chosen, self.history.rows, self.dropped
        )
        pictures.draw(
            folder / "search_report.png", search, self.history.rows, self.snapshots.rows, self.archives
        )
        write_artefact(folder / "search_report.json", summary)
        quality = report.final_quality(self.history.rows)
        if quality is not None and quality < report.BLIND_BELOW:
            tqdm.write(
                f"{search.metric} of the shared weights was {quality:.4f} at the end, too low to tell "
                "networks apart: cost alone steered this search; give it more --steps or more images",
                file=sys.stderr,
            )
        if len(search.objectives) > 1:
            for device, finalist in chosen.items():
                architectures.save(decode(space, finalist.decisions), folder / f"architecture_{device}.json")
        found = decode(space, first.decisions)
        architectures.save(found, folder / "architecture.json")
        return found

    def _finalists(self) -> dict[str, list[report.Finalist]]:
        """For each device the policy's network, and the best seen, evaluated on the held-out images."""
        wanted: dict[str, list[tuple[tuple[int, ...], str]]] = {}
        rng = np.random.default_rng((self.search.seed, _AFTER))
        agents = {agent.objective.device: agent for agent in self.agents}
        for objective in self.search.objectives:
            rows = []
            agent = agents.get(objective.device)
            found = agent.found(rng) if agent else None
            if found is not None:
                rows.append((tuple(found.tolist()), "policy"))
                rows.append((tuple(agent.controller.best().tolist()), "argmax"))
            archive = self.archives[objective.device]
            rows += [(c.decisions, "best") for c in archive.best]
            if not rows:
                drawn = agent.propose(rng, 1) if agent else self.agents[0].propose(rng, 1)
                rows.append((tuple(drawn[0].tolist()), "policy"))
            unique = {decisions: source for decisions, source in reversed(rows)}
            wanted[objective.device] = [(d, s) for d, s in rows if unique[d] == s][:_FINALISTS]
        batches = final_batches(self._held_out)
        every = {decisions for rows in wanted.values() for decisions, _ in rows}
        qualities = {}
        for decisions in tqdm(sorted(every), desc="finalists", unit="network", disable=not self._main):
            network = np.array(decisions, np.int32)
            qualities[decisions] = self.shared.quality(batches, network, self.search.metric)
        return {
            device: [report.Finalist(d, qualities[d], s) for d, s in rows] for device, rows in wanted.items()
        }


def final_batches(held_out: data.Stream) -> list[data.Batch]:
    """The held-out images, as many as a final evaluation takes."""
    count = min(_FINAL_BATCHES, max(1, held_out.images // held_out.batch_size))
    stream = held_out.batches(0)
    return [next(stream) for _ in range(count)]


def _chosen(search: Search, objective, finalists: list[report.Finalist]) -> report.Finalist:
    """The policy's own network; without a policy the best by reward."""
    if finalists[0].source == "policy":
        return finalists[0]

    def worth(finalist: report.Finalist) -> float:
        return objective.worth(finalist.quality, objective.latency.predict_one(finalist.decisions))

    return max(finalists, key=worth)


def _fault(losses: Sequence[dict[str, float]]) -> str | None:
    """Which loss of which replica was not finite; None where the step was applied."""
    if losses[0]["applied"]:
        return None
    parts = [
        f"{name} is {value}"
        for replica in losses
        for name, value in replica.items()
        if name not in ("applied", "total_loss") and not np.isfinite(value)
    ]
    return ", ".join(parts) or "a gradient is not finite, or another worker's loss"
