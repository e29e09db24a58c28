"""`mobiledets-search`: searches a detector for a latency target."""

import sys

from absl import flags

from mobiledets_tf.cli import app
from mobiledets_tf.errors import InputError

FLAGS = flags.FlagValues()

SPACES = ("ibn", "ibn_fused", "ibn_fused_tucker")

flags.DEFINE_enum("search_space", "ibn_fused_tucker", SPACES, "Which blocks are offered.", flag_values=FLAGS)
flags.DEFINE_string("train_data", None, "Converted folder, or a pattern of TFRecords.", flag_values=FLAGS)
flags.DEFINE_string("latency_model", None, "Model of mobiledets-latency, for the space.", flag_values=FLAGS)
flags.DEFINE_float("latency_target", None, "Cost to reach, in the model's unit.", 0, flag_values=FLAGS)
flags.DEFINE_string("model_dir", None, "Folder of the search; goes on where it stopped.", flag_values=FLAGS)
flags.DEFINE_integer("steps", 50000, "Search steps.", 1, flag_values=FLAGS)
flags.DEFINE_integer("image_size", 320, "Side of the square input, in pixels.", flag_values=FLAGS)
flags.DEFINE_float("depth_multiplier", 1.0, "Scales all widths of the space.", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 16, "Training images a step.", 1, flag_values=FLAGS)
flags.DEFINE_integer("quality_batch", 32, "Held-out images for one reward.", 1, flag_values=FLAGS)
flags.DEFINE_enum("quality", "AP", ("AP", "AP50"), "What the reward counts.", flag_values=FLAGS)
flags.DEFINE_float("beta", -0.1, "Weight of the cost in the reward.", None, 0, flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 0.1, "Of the shared weights.", 0, flag_values=FLAGS)
flags.DEFINE_float("controller_learning_rate", 4.8e-3, "Of the policy (TuNAS).", 0, flag_values=FLAGS)
flags.DEFINE_float("op_warmup_fraction", 0.25, "Share of steps with op warm-up.", flag_values=FLAGS)
flags.DEFINE_float("filter_warmup_fraction", 0.25, "Share of steps with filter warm-up.", flag_values=FLAGS)
flags.DEFINE_float("rl_delay_fraction", 0.25, "Share of steps before the policy learns.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Of weights, data order and samples.", 0, 2**31 - 1, flag_values=FLAGS)
flags.DEFINE_bool("deterministic", False, "Deterministic operations: slower, repeatable.", flag_values=FLAGS)
for _name in ("train_data", "latency_model", "latency_target", "model_dir"):
    flags.mark_flag_as_required(_name, flag_values=FLAGS)

DESCRIPTION = """
Searches the space for a detector near the latency target; writes architecture.json,
search_report.json and search_report.png into --model_dir.

  mobiledets-search --search_space=ibn_fused_tucker --train_data=data/records \\
    --latency_model=latency_model.json --latency_target=1.5e9 --model_dir=runs/search --steps=50000
"""


def main() -> None:
    """Checks the flags, then searches."""
    from mobiledets_tf import latency, search_space

    space = search_space.get_space(FLAGS.search_space, depth_multiplier=FLAGS.depth_multiplier)
    model = latency.load(FLAGS.latency_model)
    model.require_space(space)
    if model.image_size != (FLAGS.image_size, FLAGS.image_size):
        raise InputError(
            f"--image_size={FLAGS.image_size}: the latency model is of "
            f"{model.image_size[0]}x{model.image_size[1]}"
        )
    if FLAGS.latency_target <= 0:
        raise InputError(f"--latency_target={FLAGS.latency_target}: allowed are numbers above 0")
    from mobiledets_tf.compat import tf
    from mobiledets_tf.search import loop, schedule

    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    found = loop.run(
        loop.Search(
            train_data=FLAGS.train_data,
            model_dir=FLAGS.model_dir,
            latency=model,
            target=FLAGS.latency_target,
            schedule=schedule.Schedule(
                steps=FLAGS.steps,
                op_warmup=FLAGS.op_warmup_fraction,
                filter_warmup=FLAGS.filter_warmup_fraction,
                rl_delay=FLAGS.rl_delay_fraction,
                controller_rate=FLAGS.controller_learning_rate,
                weight_rate=FLAGS.learning_rate,
            ),
            batch_size=FLAGS.batch_size,
            quality_batch=FLAGS.quality_batch,
            beta=FLAGS.beta,
            metric=FLAGS.quality,
            seed=FLAGS.seed,
        )
    )
    cost = model.predict_one(found.origin.decisions)
    print(f"searched to step {FLAGS.steps}: {FLAGS.model_dir}")
    print(f"cost {cost:,.6g} {model.unit} ({model.kind}), target {FLAGS.latency_target:,.6g}")


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
