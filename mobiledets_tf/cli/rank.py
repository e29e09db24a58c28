"""`mobiledets-rank`: compares how shared weights and training alone rank networks."""

import sys
from pathlib import Path

from absl import flags

from mobiledets_tf.cli import app

FLAGS = flags.FlagValues()

_MAX_SEED = 2**31 - 1

flags.DEFINE_string("search_dir", None, "Folder of a search with saved weights.", flag_values=FLAGS)
flags.DEFINE_string("model_dir", None, "Folder of the trainings and the report.", flag_values=FLAGS)
flags.DEFINE_string(
    "latency_model",
    None,
    "Latency model of the search's first device, a file or the name of a shipped one; not needed to resume.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "train_data",
    None,
    "Converted folder to train each network on; default: that of the search.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "draw",
    "region",
    ("region", "space"),
    "Draw networks of the latency band where the search started, or from the whole space.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("networks", 24, "Number of networks.", 3, flag_values=FLAGS)
flags.DEFINE_integer("seeds", 2, "Stand-alone trainings of each network.", 1, flag_values=FLAGS)
flags.DEFINE_enum(
    "alone",
    "AP",
    ("AP", "AP50", "loss"),
    "Quality of a network after its own training; can be changed without training again.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("steps", 1000, "Steps of each stand-alone training.", 1, flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 16, "Images per training step.", 1, flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 0.1, "Base learning rate of the trainings.", 0, flag_values=FLAGS)
flags.DEFINE_integer(
    "seed",
    0,
    "Seed of the drawn networks and of the first training of each; the next trainings have the next seeds.",
    0,
    _MAX_SEED,
    flag_values=FLAGS,
)
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
