"""`mobiledets-latency`: writes and shows linear latency models (no TensorFlow)."""

import sys

from absl import flags

from mobiledets_tf import architecture, latency
from mobiledets_tf.cli import app
from mobiledets_tf.errors import InputError
from mobiledets_tf.search_space import encode, get_space

FLAGS = flags.FlagValues()

flags.DEFINE_enum("mode", None, ["fit", "show"], "What to do.", flag_values=FLAGS)
flags.DEFINE_enum("device", "madds", ["madds"], "fit: whose cost; madds counts exactly.", flag_values=FLAGS)
flags.DEFINE_enum(
    "search_space", "ibn_fused_tucker", ["ibn", "ibn_fused", "ibn_fused_tucker"],
    "fit: the space that the model is valid for.", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string("output", None, "fit: file to write (.json).", flag_values=FLAGS)
flags.DEFINE_integer("image_size", 320, "fit: side of the square input, in pixels.", flag_values=FLAGS)
flags.DEFINE_integer("num_classes", 90, "fit: classes without the background.", flag_values=FLAGS)
flags.DEFINE_float("depth_multiplier", 1.0, "fit, show: scales all widths.", flag_values=FLAGS)
flags.DEFINE_string("model", None, "show: file that fit wrote.", flag_values=FLAGS)
flags.DEFINE_string(
    "architecture", None, "show: published network (cpu, edgetpu, dsp, gpu) or a file.", flag_values=FLAGS
)
flags.mark_flag_as_required("mode", flag_values=FLAGS)

DESCRIPTION = """
Fits the cost of every decision of a search space, and shows what the model predicts.

  mobiledets-latency --mode=fit --search_space=ibn_fused_tucker --output=latency_model.json
  mobiledets-latency --mode=show --model=latency_model.json --architecture=edgetpu
"""


def main() -> None:
    """Writes a model, or prints a prediction to stdout."""
    if FLAGS.mode == "fit":
        _fit(_required("output"))
    else:
        _show(_required("model"), _required("architecture"))


def _required(name: str) -> str:
    value = FLAGS[name].value
    if not value:
        raise InputError(f"--mode={FLAGS.mode} needs --{name}")
    return value


def _fit(output: str) -> None:
    space = get_space(FLAGS.search_space, depth_multiplier=FLAGS.depth_multiplier)
    model = latency.madds_model(space, FLAGS.image_size, FLAGS.num_classes)
    latency.save(model, output)
    print(f"{output}: device {model.device}, space {space.name}, {model.coefficients.size} coefficients")


def _show(path: str, name: str) -> None:
    model = latency.load(path)
    network = architecture.load(name).scaled(FLAGS.depth_multiplier)
    predicted = model.predict_one(encode(model.space, network))
    exact = architecture.describe(network, model.num_classes, model.image_size)["madds"]
    print(f"predicted      {predicted:,.10g} {model.unit} on {model.device}")
    print(f"multiply-adds  {exact:,}")


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
