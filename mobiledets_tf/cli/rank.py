"""`mobiledets-rank`: how well shared weights rank networks."""

import sys
from pathlib import Path

from absl import flags

from mobiledets_tf.cli import app
from mobiledets_tf.errors import InputError

FLAGS = flags.FlagValues()

flags.DEFINE_string("search_dir", None, "Folder of a search with saved weights.", flag_values=FLAGS)
flags.DEFINE_string("model_dir", None, "Folder of the trainings and the report.", flag_values=FLAGS)
flags.DEFINE_string("train_data", None, "Converted folder; default: that of the search.", flag_values=FLAGS)
flags.DEFINE_integer("networks", 10, "Networks drawn evenly from the space.", 3, flag_values=FLAGS)
flags.DEFINE_integer("steps", 1000, "Training steps of each network alone.", 1, flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 16, "Images a step.", 1, flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 0.1, "Base learning rate.", 0, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Of the networks and trainings.", 0, 2**31 - 1, flag_values=FLAGS)
for _name in ("search_dir", "model_dir"):
    flags.mark_flag_as_required(_name, flag_values=FLAGS)

DESCRIPTION = """
Draws networks, takes their quality with the shared weights of a search on its held-out images,
trains each alone, and writes rank_report.json (Kendall's tau) and rank_report.png. Called again,
it goes on where it stopped.

  mobiledets-rank --search_dir=runs/search --model_dir=runs/rank --networks=10 --steps=1000
"""


def main() -> int:
    """Shared qualities first, then one training after the other."""
    from mobiledets_tf import architecture
    from mobiledets_tf.files import read_json, write_artefact, write_json
    from mobiledets_tf.quickstart import call
    from mobiledets_tf.search import rank
    from mobiledets_tf.search.settings import keep
    from mobiledets_tf.search_space import decode

    settings, space = rank.read_search(FLAGS.search_dir)
    folder = Path(FLAGS.model_dir)
    networks = rank.sample_networks(space, FLAGS.networks, FLAGS.seed)
    given = {name: FLAGS[name].value for name in ("networks", "steps", "batch_size", "learning_rate", "seed")}
    keep(folder / "settings.json", {"search": settings} | given, "comparison")
    shared = folder / "shared_quality.json"
    if not shared.exists():
        write_json(shared, rank.shared_quality(FLAGS.search_dir, settings, space, networks))
    rows = []
    for number, (network, quality) in enumerate(
        zip(networks, read_json(shared, "shared qualities"), strict=True)
    ):
        here = folder / f"network{number:03d}"
        file = folder / f"network{number:03d}.json"
        architecture.save(decode(space, network, f"network{number:03d}"), file)
        metrics = here / "eval_metrics.json"
        if not metrics.exists():
            print(f"network {number + 1} of {FLAGS.networks}", flush=True)
            code = call(_training(settings, file, here))
            if code:
                return code
        last = read_json(metrics, "evaluation")[-1]
        if last["step"] != FLAGS.steps:
            raise InputError(f"{str(metrics)!r} ends at step {last['step']}, not at {FLAGS.steps}")
        alone = last[settings["metric"]]
        rows.append({"decisions": network.tolist(), "shared": quality, "alone": alone})
    summary = rank.report(rows, settings["metric"])
    write_artefact(folder / "rank_report.json", summary)
    rank.draw(folder / "rank_report.png", summary)
    tau, rho = summary["kendall_tau"], summary["spearman_rho"]
    print(f"Kendall's tau {tau}, Spearman's rho {rho}, {len(rows)} networks: {folder / 'rank_report.json'}")
    return 0


def _training(settings: dict, file: Path, folder: Path) -> list[str]:
    height, width = settings["image_size"]
    if height != width:
        raise InputError(f"the search is of {height}x{width} images; allowed are square ones")
    return [
        sys.executable, "-m", "mobiledets_tf.cli.train", f"--architecture={file}",
        f"--train_data={FLAGS.train_data or settings['train_data']}", f"--model_dir={folder}",
        f"--image_size={height}", f"--steps={FLAGS.steps}", f"--batch_size={FLAGS.batch_size}",
        f"--learning_rate={FLAGS.learning_rate}", "--norandom_flip", "--norandom_crop",
        f"--seed={FLAGS.seed}",
    ]  # fmt: skip


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
