"""Checks that a search killed at random moments has exactly the same result as an uninterrupted one.

Makes a small sample and runs a search to its end. Then runs the same search again, repeatedly killing it
(SIGKILL) after a random number of seconds and restarting it, until it has been killed `--kills` times, and
finally lets it finish. Prints one JSON object.

  python benchmarks/kill_search.py --kills=20
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import commands
import steps
from absl import app, flags

from mobiledets_tf.commands import line

flags.DEFINE_integer("kills", 20, "Number of times that the search is killed.")
flags.DEFINE_integer("steps", 400, "Number of search steps.")
flags.DEFINE_integer("seed", 0, "Seed of the random moments.")
FLAGS = flags.FLAGS


def prepare(folder: Path) -> list[str]:
    """Makes data and a latency model; returns the search command without its folder."""
    options = ("--search_space=ibn", "--image_size=96", "--depth_multiplier=0.25")
    records, model = steps.sample(folder, 60, 96, num_val=4), folder / "latency_model.json"
    fit = ("--mode=fit", "--device=madds", "--num_classes=10", f"--output={model}", *options)
    commands.run("latency", *fit)
    arguments = [
        *options,
        f"--train_data={records}",
        f"--latency_model={model}",
        "--latency_target=1e7",
        f"--steps={FLAGS.steps}",
        "--batch_size=4",
        "--finalist_steps=6",
        "--checkpoint_every=5",
        "--deterministic",
    ]
    return line("search", arguments)


def state(folder: Path) -> dict:
    return json.loads((folder / "search_state.json").read_text())


def size(folder: Path) -> int:
    """Returns the size of the history file, which grows with every step."""
    path = folder / "history.jsonl"
    return path.stat().st_size if path.exists() else 0


def main(_):
    rng = random.Random(FLAGS.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        search = prepare(folder)
        start = time.perf_counter()
        subprocess.run([*search, f"--model_dir={folder / 'whole'}"], check=True, capture_output=True)
        whole_s = time.perf_counter() - start
        killed, saved_steps = 0, []
        while killed < FLAGS.kills:
            process = subprocess.Popen(
                [*search, f"--model_dir={folder / 'killed'}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            # Wait until the search has made a step; an earlier kill would only test its start.
            before = size(folder / "killed")
            while process.poll() is None and size(folder / "killed") <= before:
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 4))
            if process.poll() is not None:
                break
            process.kill()
            process.wait()
            killed += 1
            saved = folder / "killed" / "search_state.json"
            saved_steps.append(state(folder / "killed")["step"] if saved.exists() else 0)
            print(f"kill {killed}: saved step {saved_steps[-1]}", file=sys.stderr)
        subprocess.run([*search, f"--model_dir={folder / 'killed'}"], check=True, capture_output=True)
        one, other = state(folder / "whole"), state(folder / "killed")
        files = ("architecture.json", "history.jsonl", "policy.jsonl", "finalists/finalists.json")
        same = {
            name: (folder / "whole" / name).read_bytes() == (folder / "killed" / name).read_bytes()
            for name in files
        }
    print(
        json.dumps(
            {
                "kills": killed,
                "saved_steps_at_kills": saved_steps,
                "steps": FLAGS.steps,
                "equal_logits": one["agents"] == other["agents"],
                "equal_archives": one["archives"] == other["archives"],
                "equal_files": same,
                "uninterrupted_s": whole_s,
            }
        )
    )


if __name__ == "__main__":
    app.run(main)
