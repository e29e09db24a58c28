"""`mobiledets-quickstart`: searches, trains and exports an int8 detector from images with boxes."""

import sys

from absl import flags

from mobiledets_tf.cli import app
from tflite_export.devices import TIMING

FLAGS = flags.FlagValues()

flags.DEFINE_string("work_dir", "quickstart", "Folder for all outputs.", flag_values=FLAGS)
flags.DEFINE_string(
    "data",
    None,
    "Data folder: COCO, Pascal VOC, YOLO, TFRecords of other tools, or another format that "
    "mobiledets-data reads; default: a built-in sample set.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "device",
    "madds",
    ["madds", *TIMING],
    "What the search optimises for: the number of multiply-adds, or the latency on a device. The "
    "latency model of the device is made first, from networks that are measured, simulated or "
    "estimated here.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("seed", 0, "Random seed for data, search and training.", 0, 2**31 - 1, flag_values=FLAGS)

DESCRIPTION = """
Converts images, makes a latency model, searches for a network, trains it and exports it to int8. Writes
WORK_DIR/index.html, a page with all results, and prints its main figures. Run the same command again to
resume after an interruption.

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
