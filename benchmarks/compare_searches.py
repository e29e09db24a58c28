"""Compares searches on the sample set: evolution, tunas, random, and tunas with dense momentum.

Each variant and seed has the same number of steps, target and cost band; the network found is then trained
alone. `cost_over_target` belongs to the network found, and `argmax_over_target` to the network with the
likeliest option of each decision. To resume, run the same command again. Prints one JSON object.

  python benchmarks/compare_searches.py --work_dir=compare --seeds=3 --steps=240 --train_steps=1200
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from absl import app, flags

VARIANTS = {
    "evolution": (),
    "tunas": ("--algorithm=tunas",),
    "random": ("--algorithm=random", "--region=space"),
    "dense": ("--algorithm=tunas", "--weight_update=dense"),
}

flags.DEFINE_string("work_dir", "compare_searches", "Folder for all files.")
flags.DEFINE_list(
    "variants", ["evolution", "tunas", "random"], f"Variants to compare; allowed: {', '.join(VARIANTS)}."
)
flags.DEFINE_integer("seeds", 3, "Number of searches of each variant.")
flags.DEFINE_integer("steps", 240, "Number of search steps.")
flags.DEFINE_integer("train_steps", 1200, "Steps of stand-alone training; 0 skips it.")
flags.DEFINE_string("search_space", "ibn_fused_tucker", "Search space.")
flags.DEFINE_integer("image_size", 160, "Side of the square images, in pixels.")
flags.DEFINE_float("depth_multiplier", 0.35, "Scales all widths of the space.")
flags.DEFINE_integer("images", 1000, "Number of training images in the sample set.")
flags.DEFINE_string(
    "latency_model", None, "Latency model of a device for the same settings; default: multiply-adds."
)
flags.DEFINE_float("latency_target", 6.88e7, "Target, in the unit of the latency model.")
FLAGS = flags.FLAGS


def run(name: str, *arguments: str) -> None:
    line = [sys.executable, "-m", f"mobiledets_tf.cli.{name}", *arguments]
    print(" ".join(line[2:]), file=sys.stderr, flush=True)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def prepare(folder: Path) -> tuple[Path, Path]:
    images, records = folder / "images", folder / "records"
    model = Path(FLAGS.latency_model or folder / "latency_model.json")
    size = f"--image_size={FLAGS.image_size}"
    if not records.exists():
        run("data", "--mode=sample", f"--output_dir={images}", f"--num_train={FLAGS.images}", size)
        run("data", "--mode=convert", f"--images={images}", f"--output_dir={records}")
    if not model.exists():
        run(
            "latency",
            "--mode=fit",
            "--device=madds",
            "--num_classes=10",
            f"--output={model}",
            size,
            f"--search_space={FLAGS.search_space}",
            f"--depth_multiplier={FLAGS.depth_multiplier}",
        )
    return records, model


def one(folder: Path, records: Path, model: Path, variant: str, seed: int) -> dict:
    """Runs one search and the training of its network; returns the results."""
    search, train = folder / f"{variant}_{seed}_search", folder / f"{variant}_{seed}_train"
    size, data, numbers = f"--image_size={FLAGS.image_size}", f"--train_data={records}", f"--seed={seed}"
    if not (search / "search_report.json").exists():
        run(
            "search",
            f"--search_space={FLAGS.search_space}",
            size,
            data,
            numbers,
            "--preset=small",
            f"--depth_multiplier={FLAGS.depth_multiplier}",
            f"--latency_model={model}",
            f"--latency_target={FLAGS.latency_target}",
            f"--model_dir={search}",
            f"--steps={FLAGS.steps}",
            *VARIANTS[variant],
        )
    report = json.loads((search / "search_report.json").read_text())
    found = report["devices"][0]
    argmax = [f for f in found["finalists"] if f["source"] == "argmax"] or [found]
    row = {
        "variant": variant,
        "seed": seed,
        "cost_over_target": found["cost_over_target"],
        "argmax_over_target": argmax[0]["cost_over_target"] if variant != "random" else None,
        "shared_quality": found["quality"],
        "entropy": report["history"][-1]["entropy"],
        "params": found["params"],
    }
    if FLAGS.train_steps:
        metrics = train / "eval_metrics.json"
        if not metrics.exists():
            run(
                "train",
                f"--architecture={search / 'architecture.json'}",
                data,
                f"--model_dir={train}",
                size,
                f"--steps={FLAGS.train_steps}",
                "--learning_rate=0.1",
                "--norandom_flip",
                numbers,
            )
        last = json.loads(metrics.read_text())[-1]
        row |= {"AP": last["AP"], "AP50": last["AP50"]}
    return row


def main(_):
    folder = Path(FLAGS.work_dir)
    records, model = prepare(folder)
    rows = [one(folder, records, model, v, seed) for seed in range(FLAGS.seeds) for v in FLAGS.variants]
    means = {
        variant: {
            name: statistics.mean(row[name] for row in rows if row["variant"] == variant)
            for name in ("AP", "AP50", "cost_over_target")
            if name in rows[0]
        }
        for variant in FLAGS.variants
    }
    within = [abs(r["cost_over_target"] - 1) <= 0.03 for r in rows if r["variant"] == "tunas"]
    print(
        json.dumps(
            {
                "means": means,
                "tunas_within_3_percent": f"{sum(within)} of {len(within)}",
                "settings": {
                    name: FLAGS[name].value
                    for name in (
                        "steps",
                        "train_steps",
                        "search_space",
                        "image_size",
                        "depth_multiplier",
                        "images",
                        "latency_model",
                        "latency_target",
                    )
                },
                "runs": rows,
            }
        )
    )


if __name__ == "__main__":
    app.run(main)
