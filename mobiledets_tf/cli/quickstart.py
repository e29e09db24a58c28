"""`mobiledets-quickstart`: searches, trains and exports an int8 detector from images with boxes."""

import sys

from absl import flags

from mobiledets_tf.cli import app
from tflite_export.devices import TIMING

FLAGS = flags.FlagValues()

flags.DEFINE_string("work_dir", "quickstart", "Folder for everything that is written.", flag_values=FLAGS)
flags.DEFINE_string(
    "data",
    None,
    "Data folder: COCO, Pascal VOC, YOLO, TFRecords of others or another format that "
    "mobiledets-data reads; default: built-in sample.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "device",
    "madds",
    ["madds", *TIMING],
    "What the network shall be fast on: multiply-adds, or a device "
    "whose latency model is made first, of networks measured, simulated or estimated here.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("seed", 0, "Of data, search and training.", 0, 2**31 - 1, flag_values=FLAGS)

DESCRIPTION = """
Runs data, latency, search, train and export one after the other; called again, it goes on.
Ends with WORK_DIR/index.html, a page that shows everything, and prints its figures.

  mobiledets-quickstart --work_dir=quickstart
  mobiledets-quickstart --work_dir=cards --data=path/to/data_folder --device=host_cpu
"""


def main() -> int:
    """Runs all stages, prints the table of results and returns the exit code."""
    from mobiledets_tf.quickstart import pipeline
    from mobiledets_tf.quickstart.options import QuickstartOptions

    code, summary = pipeline.run(app.options(FLAGS, QuickstartOptions))
    for name, value in (summary or {}).items():
        print(f"{name:<14} {_text(value)}")
    return code


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
