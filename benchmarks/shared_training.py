"""Compares ways of training shared weights by how well they rank networks.

Each variant trains the shared weights of a space on the same images with the same seed, then measures the
loss of networks on held-out images. Their AP after stand-alone training is read from the report of
`mobiledets-rank`. Each variant and seed is one JSON file in the work folder; to resume, run the same
command again, several times in parallel if there are more cores. Prints one JSON object: for each variant
the training loss of the last 50 steps and Kendall's tau between the negative held-out loss and AP, by seed,
and the tau of the controls.

  python benchmarks/shared_training.py --rank=rank/rank_report.json --train_data=records \\
    --latency_model=latency_model.json --latency_target=6.88e7 --work_dir=shared --seeds=2
"""

import argparse
import dataclasses
import fcntl
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf import latency
from mobiledets_tf.files import read_json, write_json
from mobiledets_tf.search import proposals
from mobiledets_tf.search.band import Band
from mobiledets_tf.search.known import known_networks
from mobiledets_tf.search.reliability import kendall_tau

BATCH, JUDGED, RATE = 16, 256, 0.1


@dataclasses.dataclass(frozen=True)
class Variant:
    """Settings for training shared weights; the defaults are those of the search, around known networks.

    Attributes:
      scale: initial shared kernels as a fraction of their usual size.
      together: number of networks trained in each step, with averaged gradients; the number of steps is
        divided by it.
      everywhere: whether networks are drawn from the whole space instead of around the known networks.
      mutation_rate: probability that a decision of a known network is redrawn.
      balanced: whether options that were trained less often are drawn more often.
      averaged: fraction of the steps, at the end, whose weights are averaged.
      own_steps: number of steps that each network is trained alone before it is measured.
      longer: factor that multiplies the number of steps.
    """

    scale: float = 0.15
    together: int = 1
    everywhere: bool = False
    mutation_rate: float = 0.15
    balanced: bool = False
    averaged: float = 0.0
    own_steps: int = 0
    longer: float = 1.0


VARIANTS = {
    "default": Variant(),
    "scale_1": Variant(scale=1.0),
    "scale_0.3": Variant(scale=0.3),
    "two_networks": Variant(together=2),
    "whole_space": Variant(everywhere=True),
    "rate_0.05": Variant(mutation_rate=0.05),
    "rate_0.3": Variant(mutation_rate=0.3),
    "balanced": Variant(balanced=True),
    "averaged": Variant(averaged=0.4),
    "own_20_steps": Variant(own_steps=20),
    "twice_as_long": Variant(longer=2.0),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rank", required=True, help="rank_report.json of mobiledets-rank")
    parser.add_argument("--train_data", required=True, help="converted data folder")
    parser.add_argument("--latency_model", required=True, help="latency model of the networks' space")
    parser.add_argument(
        "--latency_target", type=float, required=True, help="target in the unit of the latency model"
    )
    parser.add_argument("--band", type=float, default=0.03, help="relative width of the band at each side")
    parser.add_argument("--steps", type=int, default=480, help="training steps of the shared weights")
    parser.add_argument(
        "--variants",
        default=",".join(VARIANTS),
        help="variants to compare, separated by commas; allowed: " + ", ".join(VARIANTS),
    )
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds of each variant")
    parser.add_argument("--work_dir", default="shared_training", help="folder for the results")
    options = parser.parse_args()
    options.variants = options.variants.split(",")
    if unknown := set(options.variants) - set(VARIANTS):
        parser.error(f"--variants: unknown {', '.join(sorted(unknown))}; allowed: {', '.join(VARIANTS)}")
    return options


class Draws:
    """Draws the networks of a variant inside the latency band."""

    def __init__(self, variant: Variant, band: Band, seed: int):
        space = band.latency.space
        self._band, self._rng, self._balanced = band, np.random.default_rng(seed), variant.balanced
        self._even = proposals.even(space)
        self._counts = [np.zeros(len(row)) for row in self._even]
        known = [one.decisions for one in known_networks(band, [], True)]
        self._policies = [proposals.around(space, one, variant.mutation_rate) for one in known]
        if variant.everywhere:
            self._policies = [self._even]

    def __call__(self) -> np.ndarray:
        policy = self._policies[self._rng.integers(len(self._policies))]
        if self._balanced:
            policy = [self._rarer(*rows) for rows in zip(policy, self._even, self._counts, strict=True)]
        network = self._band.sample(policy, self._rng, 1)[0]
        for count, option in zip(self._counts, network, strict=True):
            count[option] += 1
        return network

    @staticmethod
    def _rarer(row: np.ndarray, even: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Raises the probability of mutations in proportion to how rarely they were trained."""
        weighted = row * np.where(row < 0.5, (1 + count.sum()) * even / (1 + count), 1.0)
        return weighted / weighted.sum()


def cosine(step: int, steps: int) -> float:
    """Returns the learning rate of a step: a warm-up of a twentieth of the steps, then half a cosine."""
    return RATE * min(1.0, (step + 1) / (0.05 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def measure(variant: Variant, networks: np.ndarray, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Trains the shared weights and returns the training loss and the held-out loss of each network."""
    from mobiledets_tf.compat import quiet, tf
    from mobiledets_tf.data import records
    from mobiledets_tf.models import shared_start
    from mobiledets_tf.search import input_pipeline
    from mobiledets_tf.search.step import build_step, set_seed

    strategy = None
    if variant.together > 1:
        count = variant.together
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(count)])
    shared_start._SCALE = variant.scale
    costs = latency.load(options.latency_model)
    band = Band(costs, options.latency_target, options.band)
    set_seed(seed)
    shared, config = build_step(costs.space, costs.image_size, costs.num_classes, strategy=strategy)
    files = records.resolve(options.train_data, "train")
    split, label_map = input_pipeline.Split(files), records.label_map_path(files)

    def stream(size: int, side: str, number: int) -> input_pipeline.Stream:
        return input_pipeline.Stream(split, label_map, config, shared.preprocess, size, side, number)

    with quiet():
        judge = stream(2 * BATCH, "judge", 0).fixed(JUDGED)
        train = stream(BATCH, "train", seed)
        batches = [train.batches(0, replica, variant.together) for replica in range(variant.together)]
        steps = round(options.steps * variant.longer / variant.together)
        draw, losses, average = Draws(variant, band, seed), [], Average()
        for step in range(steps):
            drawn = np.stack([draw() for _ in range(variant.together)])
            loss = shared.train([next(one) for one in batches], drawn, cosine(step, steps))[0]["total_loss"]
            losses.append(float(loss))
            if step >= steps * (1 - variant.averaged):
                average.add(_rows(shared))
            if (step + 1) % 50 == 0:
                print(
                    f"step {step + 1} of {steps}, loss {np.mean(losses[-50:]):.3f}",
                    file=sys.stderr,
                    flush=True,
                )
        if average.count:
            _assign(shared, average.mean)
        ours = [[next(one) for one in batches] for _ in range(variant.own_steps)]
        held_out = [_quality(shared, judge, ours, network) for network in networks]
    return {"training_loss": float(np.mean(losses[-50:])), "held_out_loss": held_out}


class Average:
    """The mean of weights over steps."""

    def __init__(self):
        self.count, self.mean = 0, []

    def add(self, rows: list[np.ndarray]) -> None:
        self.count += 1
        self.mean = [
            mean + (row - mean) / self.count for mean, row in zip(self.mean or rows, rows, strict=True)
        ]


def _rows(shared) -> list[np.ndarray]:
    return [bank.rows.numpy() for bank in shared.supernet.banks]


def _assign(shared, rows: list[np.ndarray]) -> None:
    for bank, row in zip(shared.supernet.banks, rows, strict=True):
        bank.rows.assign(row)


def _quality(shared, judge: list, ours: list[list], network: np.ndarray) -> float:
    """Returns the negative held-out loss of a network, after steps of its own that are then undone."""
    before = _rows(shared) if ours else []
    for slot in shared.optimizer.slots if ours else ():
        slot.assign(np.zeros(slot.shape, np.float32))
    for step, batch in enumerate(ours):
        shared.train(batch, network[None], 0.5 * cosine(step, len(ours)))
    quality = float(shared.measure(judge, network[None], "loss").mean())
    if ours:
        _assign(shared, before)
    return -quality


def pending(options: argparse.Namespace) -> Iterator[tuple[str, int, Path]]:
    """Yields and locks each variant and seed that has no result and is not in work by another process."""
    for seed in range(options.seeds):
        for name in options.variants:
            path = Path(options.work_dir) / f"{name}_{seed}.json"
            with open(path.with_suffix(".lock"), "w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if not path.exists():
                    yield name, seed, path


def summary(options: argparse.Namespace, networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the tau of all finished variants and of the controls."""
    alone = np.array([one["alone"] for one in networks])
    variants: dict[str, Any] = {}
    for name in options.variants:
        files = [Path(options.work_dir) / f"{name}_{seed}.json" for seed in range(options.seeds)]
        rows = [read_json(file, "result") for file in files if file.exists()]
        taus = [kendall_tau(-np.array(row["held_out_loss"]), alone) for row in rows]
        defined = [tau for tau in taus if tau is not None]
        variants[name] = {
            "tau": taus,
            "mean_tau": statistics.fmean(defined) if defined else None,
            "training_loss": [row["training_loss"] for row in rows],
        }
    controls = {
        name: kendall_tau(np.array([one[name] for one in networks]), alone)
        for name in ("params", "madds")
        if all(name in one for one in networks)
    }
    return {"networks": len(networks), "steps": options.steps, "controls": controls, "variants": variants}


def in_a_process(work: Callable[[], dict[str, Any]], path: Path) -> None:
    """Does the work in a separate process, because each variant configures TensorFlow; writes its result."""
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=lambda: write_json(path, work()))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{path.stem} failed")


def main() -> None:
    options = parse()
    networks = read_json(options.rank, "rank report")["networks"]
    decisions = np.array([one["decisions"] for one in networks], np.int32)
    Path(options.work_dir).mkdir(parents=True, exist_ok=True)
    for name, seed, path in pending(options):
        print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
        in_a_process(lambda n=name, s=seed: measure(VARIANTS[n], decisions, options, s), path)
    print(json.dumps(summary(options, networks), indent=1))


if __name__ == "__main__":
    main()
