"""Tests whether a searched network is better than a network that needs no search.

For each seed of data, search and training, it compares these arms, all at the cost of the published
`edgetpu`:

  published         `edgetpu`, scaled like the space
  best_known        the published network that evolution compared and ranked first, fitted into the band
  random_in_band    one network of the latency band, sampled evenly over widths and kinds of layer
  random_halving    only the selection among finalists, applied to networks sampled in the same way
  evolution, tunas  the whole search

evolution and tunas have the same number of steps. random_halving has as many steps in total as evolution,
plus two for each network that evolution measured (two steps take about as long as measuring 128 images).
`search_s` is the duration of each search, or of its last call if it was resumed. Every network is then
trained alone from newly initialised weights; `evolution_inherited` instead starts from the weights that the
search saved. To resume, run the same command again. Prints one JSON object: AP of each arm by seed, and
paired differences with their 95 % intervals.

  python benchmarks/search_worth.py --work_dir=worth --seeds=5
  python benchmarks/search_worth.py --work_dir=helmets --data=../shared/data/helmets --device=hexagon \\
    --image_size=224 --seeds=2
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import intervals
from commands import call, run

ARMS = (
    "evolution",
    "published",
    "random_in_band",
    "best_known",
    "evolution_inherited",
    "random_halving",
    "tunas",
)
BAND = 0.03
# Finalists of `random_halving`, and the number of trainings: 16 networks, then 8, 4 and 2 of them.
FINALISTS, TRAININGS = 16, 30


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work_dir", default="search_worth")
    parser.add_argument("--data", help="folder in COCO format; default: a drawn sample for each seed")
    parser.add_argument(
        "--device", default="madds", help="cost of a network: madds, hexagon, ethos_u or host_cpu"
    )
    parser.add_argument("--arms", default=",".join(ARMS), help="arms to run, separated by commas")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--search_space", default="ibn_fused_tucker")
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--depth_multiplier", type=float, default=0.35)
    parser.add_argument("--images", type=int, default=4000, help="training images of the drawn sample")
    parser.add_argument("--val_images", type=int, default=1000, help="validation images of the drawn sample")
    parser.add_argument(
        "--networks", type=int, default=200, help="number of networks that a latency model is fitted to"
    )
    parser.add_argument("--steps", type=int, default=480, help="steps of a search")
    parser.add_argument("--finalist_steps", type=int, default=240, help="steps of each finalist in a rung")
    parser.add_argument("--train_steps", type=int, default=1200, help="steps of stand-alone training")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument(
        "--search_flags", default="", help="more flags of mobiledets-search, separated by spaces"
    )
    parser.add_argument("--evaluate", help=argparse.SUPPRESS)
    return parser.parse_args()


class Seed:
    """Data, cost model, searches and trainings of one seed."""

    def __init__(self, options: argparse.Namespace, seed: int):
        self.options, self.seed = options, seed
        self.folder = Path(options.work_dir) / f"seed{seed}"
        self.records, self.model = self.folder / "records", Path(options.work_dir) / "latency_model.json"
        self.shape = (
            f"--search_space={options.search_space}",
            f"--image_size={options.image_size}",
            f"--depth_multiplier={options.depth_multiplier}",
        )

    def prepare(self) -> None:
        """Prepares the data and the cost model."""
        options, images = self.options, self.folder / "images"
        if not (self.records / "dataset.json").exists():
            if options.data is None:
                run(
                    "data",
                    "--mode=sample",
                    f"--output_dir={images}",
                    f"--num_train={options.images}",
                    f"--num_val={options.val_images}",
                    f"--image_size={options.image_size}",
                    f"--seed={self.seed}",
                )
            run(
                "data",
                "--mode=convert",
                f"--images={options.data or images}",
                f"--output_dir={self.records}",
            )
        if self.model.exists():
            return
        categories = json.loads((self.records / "dataset.json").read_text())["categories"]
        classes = (f"--num_classes={len(categories)}", *self.shape)
        if options.device == "madds":
            run("latency", "--mode=fit", "--device=madds", *classes, f"--output={self.model}")
            return
        samples = self.model.with_suffix(".jsonl")
        run(
            "latency",
            "--mode=measure",
            f"--device={options.device}",
            *classes,
            f"--networks={options.networks}",
            f"--output={samples}",
        )
        run("latency", "--mode=fit", f"--samples={samples}", f"--output={self.model}")

    def architecture(self, arm: str) -> Path:
        """Returns the file of an arm's network; runs the search if the file does not exist."""
        if arm in ("evolution", "evolution_inherited"):
            return self._search("evolution", self.options.finalist_steps, f"--steps={self.options.steps}")
        if arm == "tunas":
            return self._search(
                "tunas", self.options.finalist_steps, "--algorithm=tunas", f"--steps={self.options.steps}"
            )
        if arm == "random_halving":
            return self._random_halving()
        return self._without_search(arm)

    def _search(self, arm: str, finalist_steps: int, *flags: str) -> Path:
        options, folder = self.options, self.folder / f"{arm}_search"
        found, seconds = folder / "architecture.json", self.folder / f"{arm}_seconds.json"
        if not found.exists() or not (folder / "search_report.json").exists():
            taken = run(
                "search",
                *self.shape,
                f"--train_data={self.records}",
                f"--latency_model={self.model}",
                f"--latency_target={self.target()}",
                f"--latency_band={BAND}",
                f"--model_dir={folder}",
                f"--batch_size={options.batch_size}",
                f"--seed={self.seed}",
                f"--finalist_steps={finalist_steps}",
                *flags,
                *options.search_flags.split(),
            )
            seconds.write_text(json.dumps(taken))
        return found

    def _random_halving(self) -> Path:
        """Selects among finalists sampled evenly from the band, in about the time that evolution takes."""
        self.architecture("evolution")
        history = self.folder / "evolution_search" / "history.jsonl"
        rows = [json.loads(line) for line in history.read_text().splitlines()]
        measured = sum(row.get("measured", 0) for row in rows)
        compared = json.loads((history.parent / "finalists" / "finalists.json").read_text())
        steps = self.options.steps + self.options.finalist_steps * len(compared) + measured * 2
        return self._search(
            "random_halving",
            max(1, steps // TRAININGS),
            "--algorithm=random",
            "--region=space",
            "--nopublished",
            "--steps=1",
            f"--finalists={FINALISTS}",
        )

    def target(self) -> float:
        """Returns the cost of the published network."""
        from mobiledets_tf import latency

        return latency.load(self.model).predict_one(self._published())

    def _published(self):
        from mobiledets_tf import architecture, latency, search_space

        space = latency.load(self.model).space
        scaled = architecture.load("edgetpu").scaled(self.options.depth_multiplier)
        return search_space.encode(space, scaled)

    def _without_search(self, arm: str) -> Path:
        import numpy as np

        from mobiledets_tf import architecture, latency, search_space
        from mobiledets_tf.search import proposals
        from mobiledets_tf.search.band import Band

        path = self.folder / f"{arm}.json"
        if not path.exists():
            model, decisions = latency.load(self.model), self._published()
            if arm == "best_known":
                report = self.architecture("evolution").parent / "search_report.json"
                finalists = json.loads(report.read_text())["devices"][0]["finalists"]
                known = next(f for f in finalists if f["source"].startswith("published"))
                decisions = np.array(known["decisions"], np.int32)
            if arm == "random_in_band":
                rng, even = np.random.default_rng((7, self.seed)), proposals.even(model.space)
                (decisions,) = Band(model, self.target(), BAND).sample(even, rng, 1)
            architecture.save(search_space.decode(model.space, decisions, arm), path)
        return path

    def result(self, arm: str) -> dict:
        """Returns the results of an arm: AP of its network trained alone, and the cost of its search."""
        from mobiledets_tf import architecture, latency

        path, folder = self.architecture(arm), self.folder / f"{arm}_train"
        network = architecture.load(path)
        metrics = folder / "final_metrics.json"
        if not metrics.exists():
            more = [f"--init_from={path.parent}"] if arm == "evolution_inherited" else []
            run(
                "train",
                f"--architecture={path}",
                f"--train_data={self.records}",
                f"--model_dir={folder}",
                f"--image_size={self.options.image_size}",
                f"--steps={self.options.train_steps}",
                f"--batch_size={self.options.batch_size}",
                "--learning_rate=0.1",
                "--norandom_flip",
                "--norandom_crop",
                f"--seed={self.seed}",
                "--mode=train",
                *more,
            )
            call(__file__, f"--evaluate={folder}", f"--data={self.records}")
        model = latency.load(self.model)
        figures = architecture.describe(network, model.num_classes, model.image_size)
        row = json.loads(metrics.read_text()) | {name: figures[name] for name in ("params", "madds")}
        row["cost_over_target"] = model.predict_one(network.origin.decisions) / self.target()
        seconds = self.folder / f"{arm.removesuffix('_inherited')}_seconds.json"
        if seconds.exists():
            report = json.loads((path.parent / "search_report.json").read_text())
            (entry,) = report["devices"]
            row |= {
                "search_s": json.loads(seconds.read_text()),
                "source": entry["source"],
                "against_known": entry["against_known"],
                "certainty": entry["certainty"],
                "reliability": report["reliability"],
            }
        return row


def evaluate(folder: Path, records: str) -> None:
    """Writes the COCO metrics of the last checkpoint of a training."""
    from mobiledets_tf.detection import evaluate, training_config
    from mobiledets_tf.weights import checkpoints

    config = training_config.eval_config(folder, records)
    found = evaluate.Evaluator(config, folder).evaluate(checkpoints.find(folder))
    (folder / "final_metrics.json").write_text(json.dumps(found.metrics))


def paired(rows: dict[str, list[dict]], one: str, other: str) -> dict | None:
    """Returns the mean of the paired differences of AP and its 95 % interval by Student's t."""
    if one not in rows or other not in rows:
        return None
    return intervals.mean([a["AP"] - b["AP"] for a, b in zip(rows[one], rows[other], strict=True)])


def main() -> None:
    options = parse()
    if options.evaluate:
        evaluate(Path(options.evaluate), options.data)
        return
    arms = options.arms.split(",")
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        sys.exit(f"--arms={options.arms}: unknown {unknown[0]!r}; allowed: {', '.join(ARMS)}")
    rows: dict[str, list[dict]] = {arm: [] for arm in arms}
    for number in range(options.first_seed, options.first_seed + options.seeds):
        seed = Seed(options, number)
        seed.prepare()
        for arm in arms:
            rows[arm].append(seed.result(arm))
            print(f"seed {number} {arm}: AP {rows[arm][-1]['AP']:.4f}", file=sys.stderr, flush=True)
    print(
        json.dumps(
            {
                "AP": {arm: [row["AP"] for row in mine] for arm, mine in rows.items()},
                "mean_AP": {arm: statistics.mean(row["AP"] for row in mine) for arm, mine in rows.items()},
                "evolution_minus_published": paired(rows, "evolution", "published"),
                "evolution_minus_random": paired(rows, "evolution", "random_in_band"),
                "evolution_minus_best_known": paired(rows, "evolution", "best_known"),
                "evolution_minus_random_halving": paired(rows, "evolution", "random_halving"),
                "evolution_minus_tunas": paired(rows, "evolution", "tunas"),
                "inherited_minus_fresh": paired(rows, "evolution_inherited", "evolution"),
                "runs": rows,
                "settings": vars(options),
            }
        )
    )


if __name__ == "__main__":
    main()
