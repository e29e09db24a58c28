"""Measures how many training steps trained weights save, on their own network and on other networks.

For each data set and seed it compares these arms, all trained in the same way:

  scratch@NETWORK     newly initialised weights
  edgetpu             the weights on their own network, with batch normalisation recovered
  dsp                 the same weights, remapped
  band0, band1, ...   remapped to mutations of `edgetpu` inside a latency band of 3 % around it
  edgetpu_0.75        remapped to `edgetpu` at depth multiplier 0.75

Every training has its own schedule: AP after 120 steps differs from AP after the first 120 of 500 steps. The
aim is that remapped weights need at most a third of the steps of newly initialised weights: `third` lists AP
after a third of the largest number of steps, together with AP of `scratch` after all steps.

A full run takes hours. Each training writes WORK_DIR/DATA/results/ARM_STEPS_SEED.json, after which its model
folder is removed. The same command resumes: it skips trainings with a result, and a training that was
stopped resumes from its last checkpoint. A training that fails is reported and retried by the next call.
Prints one JSON object; WORK_DIR/transfer.json contains the same object for the trainings finished so far.

  python benchmarks/transfer.py --data=../shared/data/cards --data=../shared/data/helmets \\
    --weights=../shared/reference/coral_detector/ssdlite_mobiledet_dog_vs_cat.tflite
"""

import argparse
import dataclasses
import json
import multiprocessing
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from commands import run

from mobiledets_tf import files
from mobiledets_tf.errors import CheckFailed

BAND, RATE = 0.03, 0.15


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", required=True, help="weights, as for --init_from of mobiledets-train")
    parser.add_argument("--data", action="append", required=True, help="folder in COCO format; repeatable")
    parser.add_argument("--work_dir", default="transfer", help="folder for all files")
    parser.add_argument("--steps", default="120,167,500", help="numbers of training steps")
    parser.add_argument("--scratch_steps", default="120,500", help="likewise, for newly initialised weights")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds")
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--arms", help="arms to run, separated by commas; default: all")
    parser.add_argument("--networks", type=int, default=3, help="number of mutations inside the band")
    parser.add_argument("--image_size", type=int, default=192)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=0.02)
    parser.add_argument("--scratch_learning_rate", type=float, default=0.1)
    parser.add_argument(
        "--depth_multiplier", type=float, default=1.0, help="scales every network; for quick trials"
    )
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
    """Returns mutations of a network with nearly its multiply-adds, the same in every call."""
    import numpy as np

    from mobiledets_tf import latency, search_space
    from mobiledets_tf.search import proposals
    from mobiledets_tf.search.band import Band

    path = Path(options.work_dir) / "madds.json"
    if not path.exists():
        run(
            "latency",
            "--mode=fit",
            "--device=madds",
            "--search_space=ibn_fused_tucker",
            "--num_classes=10",
            f"--image_size={options.image_size}",
            f"--depth_multiplier={options.depth_multiplier}",
            f"--output={path}",
        )
    model = latency.load(path)
    seed = search_space.encode(model.space, network)
    band = Band(model, model.predict_one(seed), BAND)
    drawn = band.sample(proposals.around(model.space, seed, RATE), np.random.default_rng(0), options.networks)
    return {f"band{i}": search_space.decode(model.space, row, f"band{i}") for i, row in enumerate(drawn)}


@dataclasses.dataclass(frozen=True)
class Training:
    """One training of an arm on a data set, with a number of steps and a seed."""

    data: str
    arm: str
    steps: int
    seed: int

    @property
    def scratch(self) -> bool:
        return self.arm.startswith("scratch@")

    @property
    def network(self) -> str:
        return self.arm.removeprefix("scratch@")

    @property
    def name(self) -> str:
        return f"{self.arm}_{self.steps}_{self.seed}"


def plan(options: argparse.Namespace, arms: list[str]) -> list[Training]:
    """Returns all trainings, ordered by data set, seed and arm."""
    lengths = {False: numbers(options.steps), True: numbers(options.scratch_steps)}
    return [
        Training(Path(data).name, arm, steps, seed)
        for data in options.data
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for arm in arms
        for steps in lengths[arm.startswith("scratch@")]
    ]


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def train(options: argparse.Namespace, training: Training, network: Path) -> dict:
    """Trains a network, or reads what an earlier call measured; returns the metrics of its last step.

    Raises:
      subprocess.CalledProcessError: the training failed.
      CheckFailed: the evaluation failed.
    """
    folder = Path(options.work_dir) / training.data
    result, model_dir = folder / "results" / f"{training.name}.json", folder / training.name
    if result.exists():
        return files.read_json(result)
    start = time.perf_counter()
    rate = options.scratch_learning_rate if training.scratch else options.learning_rate
    more = [] if training.scratch else [f"--init_from={options.weights}"]
    run(
        "train",
        "--mode=train",
        f"--architecture={network}",
        f"--train_data={folder / 'records'}",
        f"--model_dir={model_dir}",
        f"--image_size={options.image_size}",
        f"--steps={training.steps}",
        f"--batch_size={options.batch_size}",
        f"--learning_rate={rate}",
        "--norandom_flip",
        "--norandom_crop",
        f"--seed={training.seed}",
        *more,
    )
    # A separate process releases all memory of TensorFlow when it ends.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        metrics = pool.apply(last_metrics, (str(model_dir),))
    row = dataclasses.asdict(training) | {"learning_rate": rate, "metrics": metrics}
    files.write_json(result, row | {"seconds_of_last_call": round(time.perf_counter() - start, 1)})
    shutil.rmtree(model_dir)
    return row


def last_metrics(folder: str) -> dict:
    """Returns the COCO metrics and losses of the last checkpoint of a model folder."""
    from mobiledets_tf.detection import evaluate, training_config
    from mobiledets_tf.weights import checkpoints

    evaluator = evaluate.Evaluator(training_config.eval_config(folder), folder)
    return evaluator.evaluate(checkpoints.find(folder)).metrics


def main() -> None:
    options = parse()
    # A stopped benchmark must not leave a training running, which would keep its folder locked.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    found = networks(options)
    arms = [arm for name in found for arm in (name, f"scratch@{name}")]
    wanted = options.arms.split(",") if options.arms else arms
    unknown = [arm for arm in wanted if arm not in arms]
    if unknown:
        sys.exit(f"--arms={options.arms}: unknown {unknown[0]!r}; allowed: {', '.join(arms)}")
    for data in options.data:
        records = Path(options.work_dir) / Path(data).name / "records"
        if not (records / "dataset.json").exists():
            run("data", "--mode=convert", f"--images={data}", f"--output_dir={records}")
    rows: dict = {}
    failed: list[str] = []
    trainings = plan(options, wanted)
    for count, training in enumerate(trainings, 1):
        try:
            row = train(options, training, found[training.network])["metrics"]
        except (subprocess.CalledProcessError, CheckFailed) as error:
            if getattr(error, "returncode", 1) not in (1, 2):
                raise  # Interrupted or killed: the next call resumes.
            failed.append(f"{training.data}/{training.name}")
            print(f"failed: {failed[-1]}", file=sys.stderr, flush=True)
            continue
        by_steps = rows.setdefault(training.data, {}).setdefault(training.arm, {})
        shown = {name: row[name] for name in ("AP", "AP50", "loss")}
        by_steps.setdefault(str(training.steps), []).append(shown)
        print(
            f"{count} of {len(trainings)}: {training.data} {training.name}: AP {row['AP']:.4f}",
            file=sys.stderr,
            flush=True,
        )
        files.write_json(Path(options.work_dir) / "transfer.json", summary(options, rows, failed))
    print(json.dumps(summary(options, rows, failed)))
    sys.exit(1 if failed else 0)


def summary(options: argparse.Namespace, rows: dict, failed: list[str]) -> dict:
    """Returns the results so far: mean AP, the comparison at a third of the steps, and each training."""
    return {
        "mean_AP": means(rows),
        "third": thirds(rows, numbers(options.steps)),
        "failed": failed,
        "runs": rows,
        "settings": vars(options),
    }


def means(rows: dict) -> dict:
    """Returns the mean AP over the seeds, by data set, arm and number of steps."""
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
