"""`mobiledets-rank`: compares how shared weights and training alone rank networks."""

import os
import sys
from pathlib import Path

from absl import flags

from mobiledets_tf.cli import app
from mobiledets_tf.errors import InputError

FLAGS = flags.FlagValues()

_MAX_SEED = 2**31 - 1

flags.DEFINE_string("search_dir", None, "Folder of a search with saved weights.", flag_values=FLAGS)
flags.DEFINE_string("model_dir", None, "Folder of the trainings and the report.", flag_values=FLAGS)
flags.DEFINE_string(
    "latency_model", None, "Latency model of the search's first device, a file or the name of a shipped one; "
    "not needed to resume.", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "train_data", None, "Converted folder to train each network on; default: that of the search.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "draw", "region", ("region", "space"), "Draw networks of the latency band where the search started, or "
    "from the whole space.", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer("networks", 24, "Number of networks.", 3, flag_values=FLAGS)
flags.DEFINE_integer("seeds", 2, "Stand-alone trainings of each network.", 1, flag_values=FLAGS)
flags.DEFINE_enum(
    "alone", "AP", ("AP", "AP50", "loss"), "Quality of a network after its own training; can be changed "
    "without training again.", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer("steps", 1000, "Steps of each stand-alone training.", 1, flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 16, "Images per training step.", 1, flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 0.1, "Base learning rate of the trainings.", 0, flag_values=FLAGS)
flags.DEFINE_integer(
    "seed", 0, "Seed of the drawn networks and of the first training of each; the next trainings have the "
    "next seeds.", 0, _MAX_SEED, flag_values=FLAGS,
)  # fmt: skip
for _name in ("search_dir", "model_dir"):
    flags.mark_flag_as_required(_name, flag_values=FLAGS)

DESCRIPTION = """
Draws networks from the latency band of a search, measures their quality with the shared weights on
held-out images, trains each network alone with several seeds, and writes rank_report.json (Kendall's tau
with its interval, the reliability of both sides, and the tau of network size as a control) and
rank_report.png. Run the same command again to resume.

  mobiledets-rank --search_dir=runs/search --latency_model=latency_model.json --model_dir=runs/rank
"""


def main() -> int:
    """Measures qualities with the shared weights, trains each network alone and writes the report."""
    from mobiledets_tf.files import write_artefact
    from mobiledets_tf.folder_lock import locked
    from mobiledets_tf.search import rank, rank_report

    settings, space = rank.read_search(FLAGS.search_dir)
    if FLAGS.seed + FLAGS.seeds - 1 > _MAX_SEED:
        raise InputError(f"--seed={FLAGS.seed} with --seeds={FLAGS.seeds}: the largest seed is {_MAX_SEED}")
    folder = Path(FLAGS.model_dir)
    _start(folder, settings, space)
    networks, shared = rank.read_start(folder, space, FLAGS.networks)
    with locked(folder):
        code, alone = _train_alone(folder, settings)
    if code:
        return code
    about = {"metric": settings["metric"], "alone_metric": FLAGS.alone, "draw": FLAGS.draw,
             "steps": FLAGS.steps, "seed": FLAGS.seed}  # fmt: skip
    summary = rank_report.report(networks, shared, alone, rank_report.sizes(settings, space, networks), about)
    write_artefact(folder / "rank_report.json", summary)
    rank_report.draw(folder / "rank_report.png", summary)
    print(" ".join([*rank_report.sentences(summary), f"Report: {folder / 'rank_report.json'}"]))
    return 0


def _train_data(settings: dict) -> str:
    return FLAGS.train_data or settings["train_data"]


def _check_data(settings: dict) -> None:
    """Checks, before anything is written, that the data exist and have the classes of the search."""
    from mobiledets_tf.data import classes, records

    searched, trained = (
        records.label_map_path(records.resolve(data, "train"))
        for data in (settings["train_data"], _train_data(settings))
    )
    classes.require_same(
        records.read_label_map(trained), repr(trained), records.read_label_map(searched), repr(searched)
    )
    if os.path.isdir(_train_data(settings)):
        records.resolve(_train_data(settings), "val")


def _start(folder: Path, settings: dict, space) -> None:
    """Draws networks and measures them with the shared weights, unless the folder has them already."""
    from mobiledets_tf import latency
    from mobiledets_tf.search import rank
    from mobiledets_tf.search.settings import keep

    band = None
    if FLAGS.latency_model is not None:
        band = rank.search_band(settings, space, latency.load(FLAGS.latency_model))
    names = ("draw", "networks", "seeds", "steps", "batch_size", "learning_rate", "seed")
    flag_values = {name: FLAGS[name].value for name in names} | {"train_data": _train_data(settings)}
    # The settings are written last, so a folder that has them also has the networks and their qualities.
    file = folder / "settings.json"
    if not file.exists():
        if band is None:
            raise InputError("--latency_model is required to draw networks from the search's latency band")
        _check_data(settings)
        policies = rank.policies(settings, band, FLAGS.draw)
        networks = rank.sample_networks(band, policies, FLAGS.networks, FLAGS.seed)
        shared = rank.shared_quality(FLAGS.search_dir, settings, space, networks)
        rank.write_start(folder, space, networks, shared)
    keep(file, {"search": settings} | flag_values, "comparison")


def _train_alone(folder: Path, settings: dict):
    """Trains each network alone with each seed, except where that is already done.

    Returns:
      An exit code and the qualities, float64 [networks, seeds], which are complete if the code is 0.
    """
    import numpy as np

    from mobiledets_tf.quickstart.runner import call
    from mobiledets_tf.search import rank

    alone = np.zeros((FLAGS.networks, FLAGS.seeds))
    for number, index in np.ndindex(*alone.shape):
        file, seed = rank.network_file(folder, number), FLAGS.seed + index
        here = folder / f"{file.stem}_seed{seed}"
        quality = rank.alone_quality(here, FLAGS.steps, FLAGS.alone)
        if quality is None:
            print(f"network {number + 1} of {FLAGS.networks}, seed {seed}", flush=True)
            code = call(_training(settings, file, here, seed))
            if code:
                return code, alone
            quality = rank.alone_quality(here, FLAGS.steps, FLAGS.alone)
        if quality is None:
            raise InputError(f"the training in {str(here)!r} has no evaluation at step {FLAGS.steps}")
        alone[number, index] = quality
    return 0, alone


def _training(settings: dict, file: Path, folder: Path, seed: int) -> list[str]:
    """Returns the command that trains a network alone."""
    return [
        sys.executable, "-m", "mobiledets_tf.cli.train", f"--architecture={file}",
        f"--train_data={_train_data(settings)}", f"--model_dir={folder}",
        f"--image_size={settings['image_size'][0]}", f"--steps={FLAGS.steps}",
        f"--batch_size={FLAGS.batch_size}", f"--learning_rate={FLAGS.learning_rate}", "--norandom_flip",
        "--norandom_crop", f"--seed={seed}",
    ]  # fmt: skip


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
