"""Measures how many training steps trained weights save, on their own network and on other networks.

For each data set and seed it compares these arms, all trained in the same way:

  scratch@NETWORK     fresh weights
  edgetpu             the weights on their own network, with batch normalisation recovered
  dsp                 the same weights, remapped
  band0, band1, ...   remapped to mutations of `edgetpu` inside a latency band of 3 % around it
  edgetpu_0.75        remapped to `edgetpu` at 0.75 of its width

Every training has its own schedule: AP after 120 steps is not that of the first 120 steps of 500. The aim is
that remapped weights need at most a third of the steps of fresh weights: `third` lists AP after a third of
the largest number of steps, together with AP of `scratch` after all steps. To resume, run the same command
again. Prints one JSON object.

  python benchmarks/transfer.py --data=../shared/data/cards --data=../shared/data/helmets \\
    --weights=../shared/reference/coral_detector/ssdlite_mobiledet_dog_vs_cat.tflite
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from commands import run

BAND, RATE = 0.03, 0.15


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", required=True, help="what --init_from of mobiledets-train takes")
    parser.add_argument("--data", action="append", required=True, help="folder in COCO format; repeat")
    parser.add_argument("--work_dir", default="transfer")
    parser.add_argument("--steps", default="120,167,500", help="trainings; the last are compared with")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--arms", help="some of the arms, by commas; default: all")
    parser.add_argument("--networks", type=int, default=3, help="of the band")
    parser.add_argument("--image_size", type=int, default=192)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=0.02)
    parser.add_argument("--scratch_learning_rate", type=float, default=0.1)
    parser.add_argument("--depth_multiplier", type=float, default=1.0, help="of every network; for trials")
    return parser.parse_args()


def networks(options: argparse.Namespace) -> dict[str, Path]:
    """Returns the architecture file of each arm."""
    from mobiledets_tf import architecture

    folder = Path(options.work_dir) / "networks"
    found = {name: architecture.load(name).scaled(options.depth_multiplier) for name in ("edgetpu", "dsp")}
    found |= _band(options, found["edgetpu"])
    found["edgetpu_0.75"] = architecture.load("edgetpu").scaled(0.75 * options.depth_multiplier)
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in found.items():
        architecture.save(network, folder / f"{name}.json")
    return {name: folder / f"{name}.json" for name in found}


def _band(options: argparse.Namespace, network) -> dict:
    """Returns mutations of a network with nearly its multiply-adds, the same ones in every call."""
    import numpy as np

    from mobiledets_tf import latency, search_space
    from mobiledets_tf.search import proposals
    from mobiledets_tf.search.band import Band

    path = Path(options.work_dir) / "madds.json"
    if not path.exists():
        run(
            "latency", "--mode=fit", "--device=madds", "--search_space=ibn_fused_tucker", "--num_classes=10",
            f"--image_size={options.image_size}", f"--depth_multiplier={options.depth_multiplier}",
            f"--output={path}",
        )  # fmt: skip
    model = latency.load(path)
    seed = search_space.encode(model.space, network)
    band = Band(model, model.predict_one(seed), BAND)
    drawn = band.sample(proposals.around(model.space, seed, RATE), np.random.default_rng(0), options.networks)
    return {f"band{i}": search_space.decode(model.space, row, f"band{i}") for i, row in enumerate(drawn)}


def train(
    options: argparse.Namespace, records: Path, network: Path, steps: int, seed: int, folder: Path,
    scratch: bool,
) -> dict:
    """Trains a network; returns the COCO metrics of its last checkpoint."""
    metrics = folder / "eval_metrics.json"
    rows = json.loads(metrics.read_text()) if metrics.exists() else []
    if not rows or rows[-1]["step"] < steps:
        rate = options.scratch_learning_rate if scratch else options.learning_rate
        more = [] if scratch else [f"--init_from={options.weights}"]
        run(
            "train", f"--architecture={network}", f"--train_data={records}", f"--model_dir={folder}",
            f"--image_size={options.image_size}", f"--steps={steps}", f"--batch_size={options.batch_size}",
            f"--learning_rate={rate}", "--norandom_flip", "--norandom_crop", f"--seed={seed}", *more,
        )  # fmt: skip
        rows = json.loads(metrics.read_text())
    return {name: rows[-1][name] for name in ("AP", "AP50", "loss")}


def main() -> None:
    options = parse()
    found, steps = networks(options), [int(number) for number in options.steps.split(",")]
    arms = [f"scratch@{name}" for name in found] + list(found)
    wanted = options.arms.split(",") if options.arms else arms
    unknown = [arm for arm in wanted if arm not in arms]
    if unknown:
        sys.exit(f"--arms={options.arms}: unknown {unknown[0]!r}; allowed: {', '.join(arms)}")
    rows: dict = {}
    for data in options.data:
        name = Path(data).name
        records = Path(options.work_dir) / name / "records"
        if not (records / "dataset.json").exists():
            run("data", "--mode=convert", f"--images={data}", f"--output_dir={records}")
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for arm in wanted:
                for count in steps:
                    folder = records.parent / f"{arm}_{count}_{seed}"
                    scratch, network = arm.startswith("scratch@"), found[arm.removeprefix("scratch@")]
                    row = train(options, records, network, count, seed, folder, scratch)
                    rows.setdefault(name, {}).setdefault(arm, {}).setdefault(str(count), []).append(row)
                    print(f"{name} {arm} {count} steps: AP {row['AP']:.4f}", file=sys.stderr, flush=True)
    print(json.dumps({"mean_AP": means(rows), "third": thirds(rows, steps), "runs": rows,
                      "settings": vars(options)}))  # fmt: skip


def means(rows: dict) -> dict:
    """Returns mean AP over the seeds, by data set, arm and number of steps."""
    return {
        data: {
            arm: {count: statistics.mean(row["AP"] for row in found) for count, found in by_steps.items()}
            for arm, by_steps in arms.items()
        }
        for data, arms in rows.items()
    }


def thirds(rows: dict, steps: list[int]) -> dict:
    """Returns [mean AP after a third of the steps, mean AP of scratch after all steps] by data set and arm.

    None stands for a training that was not run.
    """
    most = max(steps)
    third = str(min(steps, key=lambda count: abs(count - most / 3)))
    averages = means(rows)
    return {
        data: {
            arm: [by_steps.get(third), arms.get(f"scratch@{arm}", {}).get(str(most))]
            for arm, by_steps in arms.items()
            if not arm.startswith("scratch@")
        }
        for data, arms in averages.items()
    }


if __name__ == "__main__":
    main()
