"""Checks that training killed at random moments loses only the steps since its last checkpoint.

Makes a small sample and trains to the end. Then trains again in another folder, killing the process
(SIGKILL) `--kills` times at random moments after its first second, so that kills hit imports, tracing,
steps and the writing of checkpoints, and finally lets it finish. Steps that were lost and repeated are
compared with their first run, and the two loss curves with each other. Prints one JSON object.

  python benchmarks/kill_training.py --kills=10
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import steps
from absl import app, flags

from mobiledets_tf.commands import line

flags.DEFINE_integer("kills", 10, "Number of times that the training is killed.")
flags.DEFINE_integer("steps", 1000, "Number of training steps, with five checkpoints.")
flags.DEFINE_float("longest", 50, "Maximum number of seconds until a kill.")
flags.DEFINE_integer("seed", 0, "Seed of the random moments.")
FLAGS = flags.FLAGS
TOTAL = "Loss/total_loss"


def prepare(folder: Path) -> list[str]:
    """Makes the data; returns the training command without its folder."""
    records = steps.sample(folder, 60, 96, num_val=4)
    arguments = [
        "--architecture=edgetpu",
        "--mode=train",
        "--image_size=96",
        "--depth_multiplier=0.25",
        "--batch_size=4",
        "--learning_rate=0.02",
        f"--train_data={records}",
        f"--steps={FLAGS.steps}",
    ]
    return line("train", arguments)


def last_step(folder: Path) -> int:
    """Returns the step of the latest checkpoint, or 0 if there is none."""
    from mobiledets_tf.weights import checkpoints

    kept = checkpoints.kept(folder)
    return checkpoints.step(kept[-1]) if kept else 0


def curves(folder: Path) -> dict[int, list[dict[str, float]]]:
    """Maps each step to its summaries {name: value}, one for each time that it was run and logged."""
    from mobiledets_tf.compat import tf

    found: dict[int, list[dict[str, float]]] = {}
    for path in sorted((folder / "train").glob("events.*"), key=lambda path: path.stat().st_mtime):
        here: dict[int, dict[str, float]] = {}
        try:
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                for value in event.summary.value:
                    here.setdefault(event.step, {})[value.tag] = float(tf.make_ndarray(value.tensor))
        except tf.errors.DataLossError:
            pass  # The process was killed while it was writing its last event.
        for step, values in here.items():
            if TOTAL in values and "learning_rate" in values:
                found.setdefault(step, []).append(values)
    return found


def run_killed(train: list[str], folder: Path, rng: random.Random) -> list[dict[str, int]]:
    """Repeatedly starts and kills the training; returns the logged and the saved step at each kill."""
    rows = []
    while len(rows) < FLAGS.kills:
        process = subprocess.Popen(train, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(1, FLAGS.longest))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        rows.append({"logged": max(curves(folder), default=0), "saved": last_step(folder)})
        print(f"kill {len(rows)}: {rows[-1]}", file=sys.stderr)
    subprocess.run(train, check=True, capture_output=True)
    return rows


def apart(one: float, other: float) -> float:
    return abs(one - other) / abs(one)


def main(_):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train = prepare(folder)
        whole, killed = folder / "whole", folder / "killed"
        subprocess.run([*train, f"--model_dir={whole}"], check=True, capture_output=True)
        kills = run_killed([*train, f"--model_dir={killed}"], killed, random.Random(FLAGS.seed))
        finished_at = last_step(killed)
        one, other = ({s: v[-1] for s, v in curves(f).items()} for f in (whole, killed))
        again = [
            apart(times[0][TOTAL], later[TOTAL]) for times in curves(killed).values() for later in times[1:]
        ]
    from mobiledets_tf.detection.train import checkpoint_interval

    shared = sorted(one.keys() & other.keys())
    rates = [abs(one[step]["learning_rate"] - other[step]["learning_rate"]) for step in shared]
    losses = [apart(one[step][TOTAL], other[step][TOTAL]) for step in shared]
    tail = shared[-20:]
    print(
        json.dumps(
            {
                "kills": kills,
                "checkpoint_interval": checkpoint_interval(FLAGS.steps),
                "steps_lost_at_most": max((max(0, k["logged"] - k["saved"]) for k in kills), default=0),
                "finished_at": finished_at,
                "every_step_logged": shared == list(range(1, FLAGS.steps + 1)),
                "largest_rate_difference": max(rates),
                "steps_done_again": len(again),
                "done_again_median_relative_difference": statistics.median(again) if again else None,
                "done_again_largest_relative_difference": max(again, default=None),
                "whole_against_killed_median_relative_difference": statistics.median(losses),
                "mean_loss_of_last_20_steps": {
                    name: statistics.mean(each[step][TOTAL] for step in tail)
                    for name, each in (("whole", one), ("killed", other))
                },
            }
        )
    )


if __name__ == "__main__":
    app.run(main)
