"""`mobiledets-benchmark`: how long one inference of a .tflite file takes on a device."""

import json
import sys

from absl import flags

from mobiledets_tf.cli import app

FLAGS = flags.FlagValues()
# Known here as well, so that `--help` need not load them; a test compares both.
DEVICES = ("host_cpu",)

flags.DEFINE_string("model", None, "The .tflite file; any, ours or not.", flag_values=FLAGS)
flags.DEFINE_enum("device", "host_cpu", DEVICES, "What to run it on.", flag_values=FLAGS)
flags.DEFINE_integer("threads", 1, "Threads of the runtime.", 1, 256, flag_values=FLAGS)
flags.DEFINE_integer("runs", 50, "Timed inferences, after a warm-up.", 1, 100_000, flag_values=FLAGS)
flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.", flag_values=FLAGS)
flags.mark_flag_as_required("model", flag_values=FLAGS)

DESCRIPTION = """
Measures the latency of a .tflite file: median and spread after a warm-up.

  mobiledets-benchmark --model=runs/export/detector.tflite --threads=2 --runs=100 --format=json
"""


def main() -> None:
    """Prints one measurement to stdout."""
    from tflite_export import devices, inspect

    latency = devices.load(FLAGS.device).measure(FLAGS.model, FLAGS.threads, FLAGS.runs)
    result = {"model": FLAGS.model} | latency.to_dict()
    print(json.dumps(result, indent=1) if FLAGS.format == "json" else as_text(result))
    if FLAGS.threads > 1:
        _warn_of_threads(inspect.read(FLAGS.model))


def _warn_of_threads(model) -> None:
    from tflite_export.postprocess import CUSTOM_OP

    if CUSTOM_OP in model.histogram():
        print(
            f"note: LiteRT 2.3.0 loses detections in {CUSTOM_OP} on more than one thread; the time is "
            "measured, but use one thread or a file made with --postprocess=none",
            file=sys.stderr,
        )


def as_text(result: dict) -> str:
    """A measurement as one line."""
    return (
        f"{result['model']}: {result['median_ms']:.3f} ms ({result['kind']} on {result['device']}, "
        f"{result['threads']} threads, median of {result['runs']} runs, spread {result['spread']:.1%})"
    )


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
