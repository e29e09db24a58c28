"""`mobiledets-benchmark`: measures how long one inference of a .tflite file takes on a device."""

import json
import sys

from absl import flags

from mobiledets_tf.cli import app
from tflite_export.devices import MEASURING

FLAGS = flags.FlagValues()

flags.DEFINE_string("model", None, "Any .tflite file, from this project or elsewhere.", flag_values=FLAGS)
flags.DEFINE_enum(
    "device",
    "host_cpu",
    MEASURING,
    "Device: host_cpu (measured on this CPU), coral (measured on an attached Edge TPU), hexagon "
    "(simulated by Qualcomm's QNN), ethos_u (estimated by Arm's Vela compiler) or adb (measured on a "
    "connected Android phone).",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "variant",
    None,
    "Chip or delegate of the device; an unknown name prints the allowed ones.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("threads", 1, "Number of CPU threads of the runtime.", 1, 256, flag_values=FLAGS)
flags.DEFINE_integer(
    "runs", 50, "Minimum number of timed inferences after the warm-up.", 1, 100_000, flag_values=FLAGS
)
flags.DEFINE_bool(
    "blocks",
    False,
    "Also time each block of the architecture alone (only int8 files of this project).",
    flag_values=FLAGS,
)
flags.DEFINE_enum("format", "text", ["text", "json"], "Output format.", flag_values=FLAGS)
flags.mark_flag_as_required("model", flag_values=FLAGS)

DESCRIPTION = """
Reports the latency of a .tflite file. A measured latency is a median after a warm-up, with its spread;
simulated and estimated latencies are labelled as such.

  mobiledets-benchmark --model=runs/export/detector.tflite --threads=2 --runs=100 --format=json
  mobiledets-benchmark --model=runs/export/detector.tflite --device=hexagon --blocks
"""


def main() -> None:
    """Measures the latency of a file and prints it to stdout."""
    from tqdm import tqdm

    from tflite_export.devices import benchmarking
    from tflite_export.devices.options import BenchmarkOptions

    result = benchmarking.run(
        app.options(FLAGS, BenchmarkOptions), lambda items: tqdm(items, desc="blocks", file=sys.stderr)
    )
    print(json.dumps(result, indent=1) if FLAGS.format == "json" else as_text(result))
    if FLAGS.threads > 1 and FLAGS.device == "host_cpu":
        _warn_of_threads()


def _warn_of_threads() -> None:
    from pathlib import Path

    from tflite_export.tflite import flatbuffer, suppression

    settings = suppression.of_file(flatbuffer.unpack(Path(FLAGS.model).read_bytes()))
    if settings is not None and settings.nms == "regular":
        print(
            f"note: the latency is valid, but {suppression.THREADS_NOTE}, or export with --nms=fast",
            file=sys.stderr,
        )


def as_text(result: dict) -> str:
    """Formats a measurement: one line for the file and one for each block that was timed."""
    how = " ".join(filter(None, (result["kind"], "on", result["device"], result.get("variant"))))
    if "runs" in result:
        how += (
            f", {result['threads']} threads, {result.get('statistic', 'median')} of {result['runs']} "
            f"runs, spread {result['spread']:.1%}"
        )
    lines = [f"{result['model']}: {result['median_ms']:.3f} ms ({how})"]
    if blocks := result.get("blocks_ms"):
        lines.append("each block alone (their sum is not the network's time):")
        lines += [f"  {name:<18} {milliseconds:9.4f} ms" for name, milliseconds in blocks.items()]
    return "\n".join(lines)


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
