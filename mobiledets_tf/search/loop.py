"""Search loop: sample networks, train the shared weights, compute the reward, update the policy.

At the end the finalists are compared. A search around known networks first compares these, each trained
alone, and then searches around the best one.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobiledets_tf import architecture as architectures
from mobiledets_tf.compat import quiet, tf
from mobiledets_tf.data import classes as data_classes
from mobiledets_tf.data import records
from mobiledets_tf.detection import network_settings
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.files import write_artefact
from mobiledets_tf.folder_lock import locked
from mobiledets_tf.interrupts import StopRequest
from mobiledets_tf.replicas import Replicas, lost_workers
from mobiledets_tf.search import (
    inheritance,
    input_pipeline,
    plots,
    reliability,
    search_report,
    seeding,
    state,
)
from mobiledets_tf.search.agent import Agent, make_agent
from mobiledets_tf.search.archive import Archive, Candidate
from mobiledets_tf.search.finalists import Finalist
from mobiledets_tf.search.input_pipeline import Batch
from mobiledets_tf.search.journal import Journal
from mobiledets_tf.search.schedule import warm_up
from mobiledets_tf.search.selection import DeviceTimes, Selection
from mobiledets_tf.search.settings import Objective, Search, keep
from mobiledets_tf.search.step import build_step, mean_quality, set_seed
from mobiledets_tf.search.summaries import Summaries
from mobiledets_tf.search_space import decode
from mobiledets_tf.weights import imported_weights

SETTINGS = "settings.json"
# The search fails if a larger fraction of its steps is dropped.
MAX_DROPPED = 0.05
# Number of columns in the figure of the policy over time.
_SNAPSHOTS = 200
# Random seed of the report; its only requirement is that no step uses it.
_RELIABILITY = 1 << 41
# Maximum number of networks of the Pareto set that are measured again at the end.
_FRONT = 16
# Offset of the seed of the finalists' images, so that their order differs from that of the search steps.
_ALONE = 1 << 16


def run(
    search: Search, strategy: tf.distribute.Strategy | None = None, times: DeviceTimes | None = None
) -> architectures.Architecture:
    """Runs a search from its last saved state to its end and writes its files.

    `architecture.json` contains the network of the first steering device, and the checkpoint beside it
    the weights of that network; with several devices there is also an `architecture_DEVICE.json` for each.

    Args:
      search: settings of the search.
      strategy: a tf.distribute strategy; each replica trains its own network.
      times: measures the final population on its device if it can be reached; the measured cost then
        decides which networks are inside the latency band.

    Returns:
      The network in `architecture.json`.

    Raises:
      InputError: data, head and latency model do not fit together, the folder contains a search with
        other settings, or another search is running in it.
      CheckFailed: too many steps were dropped because a loss or reward was not finite, or another
        worker has ended.
      KeyboardInterrupt: the search was interrupted; its state has been saved.
    """
    files = records.resolve(search.train_data, "train")
    label_map = records.label_map_path(files)
    names = records.read_label_map(label_map)
    classes = len(names)
    if classes != search.latency.num_classes:
        raise InputError(
            f"{label_map} has {classes} classes; the latency model is for {search.latency.num_classes}"
        )
    # Computed before anything is written, because it fails if the band contains no network.
    if search.needs_band:
        for objective in search.objectives:
            _ = objective.networks
    strategy = strategy or tf.distribute.get_strategy()
    settings = search.settings() | {"replicas": strategy.num_replicas_in_sync}
    keep(Path(search.model_dir) / SETTINGS, settings, "search")
    set_seed(search.seed)
    chief = Replicas(strategy).is_chief
    with lost_workers(), locked(search.model_dir) if chief else contextlib.nullcontext():
        data_classes.keep(search.model_dir, files)
        try:
            return _Run(search, strategy, files, label_map, times).finish()
        except tf.errors.OpError:
            records.require_decodable(files)
            raise


class _Files:
    """Files that the chief worker appends to during the search."""

    def __init__(self, folder: Path, step: int):
        self.history = Journal(folder / "history.jsonl", step)
        self.snapshots = Journal(folder / "policy.jsonl", step)
        self.faults = Journal(folder / "dropped.jsonl", step)
        self.summaries = Summaries(folder)


class _Run:
    def __init__(
        self,
        search: Search,
        strategy: tf.distribute.Strategy,
        files: list[str],
        label_map: str,
        times: DeviceTimes | None,
    ):
        self.search = search
        latency = search.latency
        self.shared, model_config = build_step(
            latency.space,
            latency.image_size,
            latency.num_classes,
            search.execution,
            search.weight_update,
            strategy,
        )
        self._main = self.shared.replicas.is_chief
        split = input_pipeline.Split(files)

        def stream(batch_size: int, side: str, seed: int = search.seed) -> input_pipeline.Stream:
            return input_pipeline.Stream(
                split, label_map, model_config, self.shared.preprocess, batch_size, side, seed
            )

        large = search.batch_size * search.rl_batch_multiplier

        def fixed(side: str, images: int) -> list[Batch]:
            return stream(input_pipeline.fixed_batch_size(split.images[side], large), side).fixed(images)

        # The order differs from that of the search steps, so that training does not start with the images
        # that the shared weights saw last.
        alone = stream(search.batch_size, "train", search.seed + _ALONE)
        judge = fixed("judge", search.judge_images) if search.finalist_steps else []
        # Quality is measured on fixed images, the same for every network and step, or, as in TuNAS, on the
        # next batch of each replica.
        self._fixed = fixed("steer", search.quality_images or large * 4)
        self._selection = Selection(
            search,
            self.shared,
            network_settings.read(model_config.ssd),
            alone,
            judge,
            self._fixed,
            times,
        )
        if search.initial is not None and state.load(search.model_dir) is None:
            self._seed(search.initial)
        # Agents are made before the state is restored: making them may compare known networks, which resets
        # the optimizer.
        self.agents = [make_agent(search, o, self._selection.centres(o)) for o in search.steering]
        self.archives = {objective.device: Archive() for objective in search.objectives}
        self.step = self.dropped = self._drawn = 0
        folder = Path(search.model_dir)
        self._saved = state.checkpoint(self.shared.supernet, self.shared.optimizer)
        self._resume()
        self._files = _Files(folder, self.step) if self._main else None

        self._train_batches = self._iterators(stream(search.batch_size, "train"), self.step)
        self._quality_batches = None
        if not search.quality_images:
            # No quality is measured during the delay, so the held-out batches start after it.
            paid = max(0, self.step - search.schedule.first_paid_step)
            self._quality_batches = self._iterators(stream(large, "steer"), paid)

    def _seed(self, initial: imported_weights.Account) -> None:
        """Initialises the shared weights from trained weights."""
        known = self._selection.known[self.search.steering[0].device]
        lines = seeding.seed(
            self.shared.supernet, initial, known, self._selection.norm_images(), self.search.seed
        )
        set_seed(self.search.seed)
        if self._main:
            tqdm.write("\n".join(lines), file=sys.stderr)

    def _iterators(self, stream: input_pipeline.Stream, number: int) -> list:
        replicas = self.shared.strategy.num_replicas_in_sync
        return [stream.batches(number, replica, replicas) for replica in self.shared.replicas.local]

    def finish(self) -> architectures.Architecture:
        first, steps = self.step, self.search.schedule.steps
        bar = tqdm(
            total=steps,
            initial=first,
            unit="step",
            desc="search",
            dynamic_ncols=True,
            disable=not self._main,
        )
        with bar, quiet(), StopRequest() as stop:
            while self.step < steps:
                row = self._one_step()
                if self.step == first + 1:
                    # The first step traces the graph, so its duration must not enter the remaining time.
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

    def _objective(self, device: str) -> Objective:
        return next(o for o in self.search.objectives if o.device == device)

    def _one_step(self) -> dict[str, Any]:
        search, step, schedule = self.search, self.step, self.search.schedule
        agent = self.agents[step % len(self.agents)]
        # Random numbers are a function of the step, so a resumed run draws the same ones.
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
        fault, measuring = _fault(losses), agent.measures_at(step)
        # The next batches are read even if the step is dropped: batch numbers must stay in line with steps.
        next_batches = self._next_quality_batches(step)
        if fault is None:
            row |= {
                name: float(np.mean([x[name] for x in losses])) for name in losses[0] if name != "applied"
            }
            row["loss"] = row.pop("total_loss")
            if measuring:
                fault = self._learn(agent, networks, costs, next_batches, rng, row)
        self.step += 1
        if fault is not None:
            ids = [i.decode() for batch in (*batches, *next_batches) for i in batch.ids.numpy()]
            self._drop(fault, ids, networks)
        row["entropy"] = agent.entropy()
        self._log(row, agent)
        return row

    def _next_quality_batches(self, step: int) -> list[Batch]:
        """Returns one batch per local replica; none during the delay or if quality uses fixed images."""
        if self._quality_batches is None or step < self.search.schedule.first_paid_step:
            return []
        return [next(iterator) for iterator in self._quality_batches]

    def _learn(
        self,
        agent: Agent,
        networks: np.ndarray,
        costs: np.ndarray,
        batches: list[Batch],
        rng: np.random.Generator,
        row: dict[str, Any],
    ) -> str | None:
        """Lets the agent measure networks and learn from them; archives the measured networks.

        Args:
          agent: the agent that proposed the networks.
          networks: the networks that were trained in this step; int32 [networks, decisions].
          costs: their predicted costs on the agent's device; float64 [networks].
          batches: the quality batches of the local replicas; none if quality uses fixed images.
          rng: random number generator of the step.
          row: the step's row of the journal, which gets the qualities.

        Returns:
          A description of what was wrong with the qualities, or None.
        """

        def measure(wanted: np.ndarray) -> np.ndarray:
            if not batches:
                return mean_quality(self.shared.measure(self._fixed, wanted, self.search.metric))
            mine = wanted[self.shared.replicas.local]
            return self.shared.replicas.share(self.shared.quality(batches, mine, self.search.metric))

        measured, qualities = agent.learn(self.step, networks, costs, measure, rng)
        seen = ~np.isnan(qualities)
        if not seen.any():
            return None
        if not np.isfinite(qualities[seen]).any():
            return f"quality is {qualities.tolist()}"
        objective = agent.objective
        # Evolution measures a population in place of the networks that were trained.
        if measured is not networks:
            costs = objective.latency.predict(measured)
        good = np.flatnonzero(np.isfinite(qualities))
        worth = [objective.worth(qualities[i], costs[i]) for i in good]
        row |= {"quality": float(np.mean(qualities[good])), "reward": float(np.mean(worth))}
        row |= {"best_quality": float(np.max(qualities[good])), "measured": len(measured)}
        self._archive(row["step"], measured[good], qualities[good], {objective.device: costs[good]})
        return None

    def _archive(
        self, step: int, networks: np.ndarray, qualities: np.ndarray, known: dict[str, np.ndarray]
    ) -> None:
        """Adds measured networks to the archives of all devices.

        Args:
          step: number of the step, counted from 1.
          networks: int32 [networks, decisions].
          qualities: their qualities, all finite; [networks].
          known: device -> costs that are predicted already; the others are predicted here.
        """
        for objective in self.search.objectives:
            costs = known.get(objective.device)
            if costs is None:
                costs = objective.latency.predict(networks)
            for decisions, quality, cost in zip(
                networks.tolist(), qualities.tolist(), costs.tolist(), strict=True
            ):
                candidate = Candidate(step, tuple(decisions), quality, cost, objective.worth(quality, cost))
                self.archives[objective.device].add(candidate)

    def _drop(self, fault: str, ids: list[str], networks: np.ndarray) -> None:
        """Counts and reports a dropped step, which changed nothing; fails after too many of them."""
        self.dropped += 1
        fault = f"step {self.step} dropped: {fault}"
        if self._files is not None:
            self._files.faults.append(
                {"step": self.step, "fault": fault, "images": ids, "decisions": networks.tolist()}
            )
            tqdm.write(f"{fault}; images {', '.join(ids[:8])}...; see dropped.jsonl", file=sys.stderr)
        if self.dropped > max(1.0, MAX_DROPPED * self.step):
            self._save()
            raise CheckFailed(
                f"{self.dropped} of {self.step} steps dropped; allowed: {MAX_DROPPED:.0%}; "
                f"last fault: {fault}; lower --learning_rate, or check the boxes of the images in "
                "dropped.jsonl"
            )

    def _log(self, row: dict[str, Any], agent: Agent) -> None:
        if self._files is None:
            return
        self._files.history.append(row)
        rates = {"learning_rate": self.search.schedule.weight_learning_rate(self.step - 1)}
        self._files.summaries.scalars(
            row
            | rates
            | {
                "cost_over_target": row["cost"] / agent.objective.target,
                "controller_rate": self.search.schedule.controller_learning_rate(self.step - 1),
            }
        )
        every = max(1, self.search.schedule.steps // _SNAPSHOTS)
        if self.step % every == 0 or self.step == self.search.schedule.steps:
            for one in self.agents:
                rounded = [[round(float(p), 4) for p in row] for row in one.probabilities()]
                self._files.snapshots.append(
                    {"step": self.step, "device": one.objective.device, "probabilities": rounded}
                )

    def _save(self) -> None:
        if self._files is None:
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
            # A figure takes about as long as a step, so it is not drawn each time the state is saved.
            self._drawn = tenth
            for agent in self.agents:
                device = agent.objective.device
                mine = [s for s in self._files.snapshots.rows if s["device"] == device]
                self._files.summaries.policy(self.step, device, self.search.latency.space, mine)

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
        reliable = self._reliability()
        finalists = {
            objective.device: self._selection.finalists(
                objective, self.agents, self.archives[objective.device]
            )
            for objective in search.objectives
        }
        chosen = {device: found[0] for device, found in finalists.items()}
        first = chosen[search.steering[0].device]
        for objective in search.objectives:
            self._measure_front(objective)
        if self._files is None:
            return decode(space, first.decisions)
        history, snapshots = self._files.history.rows, self._files.snapshots.rows
        summary = search_report.summarise(
            search,
            self.agents,
            self._selection.known,
            self.archives,
            finalists,
            self._selection.populations,
            reliable,
            history,
            self.dropped,
        )
        plots.draw(folder / "search_report.png", search, history, snapshots, self.archives)
        write_artefact(folder / "search_report.json", summary)
        if len(search.objectives) > 1:
            for device, finalist in chosen.items():
                architectures.save(decode(space, finalist.decisions), folder / f"architecture_{device}.json")
        found = decode(space, first.decisions)
        architectures.save(found, folder / "architecture.json")
        self._write_weights(first, found)
        for line in summary["words"]:
            tqdm.write(line, file=sys.stderr)
        return found

    def _write_weights(self, finalist: Finalist, found: architectures.Architecture) -> None:
        """Writes the network's weights as a checkpoint that training, evaluation and export can read."""
        latency = self.search.latency
        weights = self._selection.weights(finalist)
        inheritance.write(
            self.search.model_dir,
            found,
            latency.num_classes,
            latency.image_size,
            weights,
            self._selection.norm_images(),
            self.step + finalist.steps,
        )

    def _reliability(self) -> reliability.Reliability:
        """Measures whether the quality distinguishes networks, on newly proposed networks."""
        agent, rng = self.agents[0], np.random.default_rng((self.search.seed, _RELIABILITY))
        networks = agent.propose(rng, reliability.NETWORKS)
        return reliability.split_half(self.shared.measure(self._fixed, networks, self.search.metric))

    def _measure_front(self, objective: Objective) -> None:
        """Measures the archived networks again with the final weights on all fixed images.

        The qualities seen during the search were measured with older weights.
        """
        archive = self.archives[objective.device]
        networks = archive.spread(_FRONT)
        if not networks:
            return
        values = self.shared.measure(self._fixed, np.array(networks, np.int32), self.search.metric)
        archive.replace(
            Candidate(self.step, decisions, float(quality), cost, objective.worth(float(quality), cost))
            for decisions, quality in zip(networks, mean_quality(values), strict=True)
            for cost in [objective.latency.predict_one(decisions)]
            if np.isfinite(quality)
        )


def _fault(losses: Sequence[dict[str, float]]) -> str | None:
    """Describes which losses were not finite; None if the step was applied."""
    if losses[0]["applied"]:
        return None
    parts = [
        f"{name} is {value}"
        for replica in losses
        for name, value in replica.items()
        if name not in ("applied", "total_loss") and not np.isfinite(value)
    ]
    return ", ".join(parts) or "a gradient or another worker's loss is not finite"
