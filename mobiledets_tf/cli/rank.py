"""`mobiledets-rank`: compares how shared weights and stand-alone training rank networks."""

import sys
from pathlib import Path

from absl import flags

from mobiledets_tf.cli import app

FLAGS = flags.FlagValues()

_MAX_SEED = 2**31 - 1

flags.DEFINE_string(
    "search_dir", None, "Folder of a search that has saved its shared weights.", flag_values=FLAGS
)
flags.DEFINE_string("model_dir", None, "Folder for the training runs and the report.", flag_values=FLAGS)
flags.DEFINE_string(
    "latency_model",
    None,
    "Latency model of the search's first device: a file or the name of a shipped model; not needed to"
    " resume.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "train_data",
    None,
    "Folder written by mobiledets-data to train each network on; default: the data of the search.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "draw",
    "region",
    ("region", "space"),
    "Which networks to draw: those in the latency band near the search's starting point (region), or "
    "any of the whole space (space).",
    flag_values=FLAGS,
)
flags.DEFINE_integer("networks", 24, "Number of networks to compare.", 3, flag_values=FLAGS)
flags.DEFINE_integer("seeds", 2, "Number of stand-alone training runs per network.", 1, flag_values=FLAGS)
flags.DEFINE_enum(
    "alone",
    "AP",
    ("AP", "AP50", "loss"),
    "Quality measure after stand-alone training; can be changed later without training again.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("steps", 1000, "Training steps of each stand-alone run.", 1, flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 16, "Images per training step.", 1, flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 0.1, "Base learning rate of the stand-alone runs.", 0, flag_values=FLAGS)
flags.DEFINE_integer(
    "seed",
    0,
    "Random seed for drawing networks and for each network's first training run; its further runs use"
    " the next seeds.",
    0,
    _MAX_SEED,
    flag_values=FLAGS,
)
for _name in ("search_dir", "model_dir"):
    flags.mark_flag_as_required(_name, flag_values=FLAGS)

DESCRIPTION = """
Tests whether the shared weights of a search rank networks as stand-alone training does. Draws networks from
the latency band, measures their quality with the shared weights on held-out images, and trains each alone
with several seeds. Writes rank_report.png and rank_report.json: Kendall's tau between both rankings with its
confidence interval, the reliability of both, and the tau of network size as a control. Run the same command
again to resume.

  mobiledets-rank --search_dir=runs/search --latency_model=latency_model.json --model_dir=runs/rank
"""


def main() -> int:
    """Measures qualities with the shared weights, trains each network alone and writes the report."""
    from mobiledets_tf.search import rank_report, rank_run
    from mobiledets_tf.search.options import RankOptions

    code, summary = rank_run.run(app.options(FLAGS, RankOptions))
    if summary is not None:
        path = Path(FLAGS.model_dir) / rank_run.REPORT
        print(" ".join([*rank_report.sentences(summary), f"Report: {path}"]))
    return code


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
