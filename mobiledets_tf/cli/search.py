"""`mobiledets-search`: searches for a detector near a latency target, on one or several devices."""

import sys

from absl import flags

from mobiledets_tf.cli import app, space_flags, strategy_flags, weight_flags

FLAGS = flags.FlagValues()

space_flags.define(FLAGS)
flags.DEFINE_string(
    "train_data",
    None,
    "Folder written by mobiledets-data --mode=convert, or a TFRecord pattern.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "latency_model",
    None,
    "Latency model of the search space: a file written by mobiledets-latency or the name of a shipped"
    " model; give one per device.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_float(
    "latency_target",
    None,
    "Target cost, in the unit of the latency model; give one per --latency_model.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "model_dir", None, "Folder of the search; an interrupted search in it is resumed.", flag_values=FLAGS
)
flags.DEFINE_string(
    "steer_by",
    None,
    "Device whose controller proposes networks; default: all devices take turns.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "preset",
    "small",
    ("small", "tunas"),
    "Defaults for flags that are not given: small is meant for small data sets and a few hundred to a"
    " few thousand steps; tunas has the values of the released TuNAS code.",
    flag_values=FLAGS,
)
# None stands for the preset's value, which the help text gives in brackets as (small, tunas).
flags.DEFINE_enum(
    "algorithm",
    None,
    ("evolution", "tunas", "random"),
    "Search algorithm: evolution evolves a population, tunas trains a policy with REINFORCE, random "
    "samples networks without learning (evolution, tunas).",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "region",
    None,
    ("known", "space"),
    "Where to search: near known networks, or in the whole space (known, space).",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "published",
    None,
    "Treat the published networks, scaled into the latency band, as known networks (true, false).",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "candidates", [], "Your own architecture files, to be treated as known networks.", flag_values=FLAGS
)
flags.DEFINE_string(
    "init_from",
    None,
    weight_flags.INIT_FROM
    + " Their network is treated as a known network; with --nopublished it is the only "
    "one (besides --candidates) to search around.",
    flag_values=FLAGS,
)
weight_flags.define_cache(FLAGS)
flags.DEFINE_float(
    "mutation_rate",
    0.15,
    "evolution: fraction of a network's decisions that a mutation changes at random.",
    0,
    1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "population", 16, "evolution: number of networks in the population.", 2, flag_values=FLAGS
)
flags.DEFINE_integer("children", 16, "evolution: number of new networks per round.", 1, flag_values=FLAGS)
flags.DEFINE_integer("rounds", 4, "evolution: number of rounds.", 1, flag_values=FLAGS)
flags.DEFINE_float(
    "latency_band", 0.03, "Allowed distance from the target, as a fraction of it.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "extraction",
    None,
    ("target", "argmax"),
    "How the final network is read from the policy: target takes the most probable network inside the"
    " latency band, argmax takes the most probable option of each decision (target, argmax).",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "finalists",
    4,
    "Number of networks per generation that are compared at the end, in addition to the known ones.",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "finalist_generations",
    1,
    "Number of generations of finalists: the search proposes the first, the networks of each further one "
    "are mutations and crossovers of the most promising finalists so far.",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "finalist_steps",
    None,
    "Steps for training each finalist alone. The best of all generations are then halved, with as many "
    "further steps each time, until two are left. With 0, there is one generation, and finalists "
    "are compared by shared weights (240, 0).",
    0,
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "finalist_start",
    "fresh",
    ("fresh", "shared"),
    "Initial weights of the finalists: fresh initialises them as mobiledets-train does, shared copies"
    " them from the supernet.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "finalist_learning_rate", 0.1, "Peak learning rate of the finalists' training.", 0, flag_values=FLAGS
)
flags.DEFINE_integer("steps", None, "Number of search steps (480, 50000).", 1, flag_values=FLAGS)
flags.DEFINE_integer("image_size", 320, "Side of the square input, in pixels.", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 16, "Training images per replica and step.", 1, flag_values=FLAGS)
flags.DEFINE_integer(
    "rl_batch_multiplier",
    None,
    "Batch size for measuring quality, as a multiple of --batch_size (2, 4).",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "quality",
    None,
    ("loss", "AP", "AP50"),
    "Quality measure that the search optimises: detection loss or average precision (loss, AP).",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "quality_images",
    None,
    "Number of held-out images for measuring quality, the same images for all networks; 0 uses the "
    "next batch instead (128, 0).",
    0,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "judge_images",
    256,
    "Number of held-out images for comparing finalists; they are disjoint from those of --quality_images.",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "reward",
    None,
    ("band", "abs", "mnas", "mnas_hard"),
    "How cost is taken into account: band draws only networks inside the latency band and rewards "
    "quality alone; the others add the cost to the reward or multiply by it (band, abs).",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "beta",
    -0.1,
    "Weight (abs) or exponent (mnas, mnas_hard) of the cost in the reward.",
    None,
    0,
    flag_values=FLAGS,
)
flags.DEFINE_float("learning_rate", 0.1, "Peak learning rate of the shared weights.", 0, flag_values=FLAGS)
flags.DEFINE_float(
    "controller_learning_rate", None, "Learning rate of the policy (0.05, 0.0048).", 0, flag_values=FLAGS
)
flags.DEFINE_float(
    "entropy_weight",
    0.0,
    "Weight of an entropy bonus that keeps the policy exploring; TuNAS uses 0.",
    0,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "op_warmup_fraction", None, "Fraction of the steps with op warm-up (0, 0.25).", flag_values=FLAGS
)
flags.DEFINE_float(
    "filter_warmup_fraction", None, "Fraction of the steps with filter warm-up (0, 0.25).", flag_values=FLAGS
)
flags.DEFINE_float(
    "rl_delay_fraction",
    None,
    "Fraction of the steps that train the shared weights only, before the search starts to learn from"
    " qualities (0.25, 0.25).",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "path_dropout",
    0.0,
    "Probability of skipping each skippable layer while shared weights are trained.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "weight_update",
    "lazy",
    ("lazy", "dense"),
    "Update of the shared weights: lazy updates only the sampled ones; dense moves all of them by "
    "their momentum, as TuNAS does.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "execution",
    "sliced",
    ("sliced", "masked"),
    "How the supernet runs a network: sliced cuts the shared weights to its widths; masked multiplies"
    " them by masks (static shapes, needed for TPUs).",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "measure_finalists",
    True,
    "Measure the final population on each model's device if it can be reached, and choose the "
    "finalists inside the latency band by the measured latency.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("checkpoint_every", 50, "Number of steps between saved states.", 1, flag_values=FLAGS)
flags.DEFINE_integer(
    "seed", 0, "Random seed for weights, data order and sampling.", 0, 2**31 - 1, flag_values=FLAGS
)
flags.DEFINE_bool(
    "deterministic",
    False,
    "Use TensorFlow's deterministic operations: slower, but reproducible.",
    flag_values=FLAGS,
)
strategy_flags.define(FLAGS)
for _name in ("train_data", "latency_model", "latency_target", "model_dir"):
    flags.mark_flag_as_required(_name, flag_values=FLAGS)

DESCRIPTION = """
Searches for the best detector near a latency target. Writes architecture.json, a checkpoint of its weights,
search_report.json, search_report.png and TensorBoard summaries to --model_dir. For flags that depend on
--preset, the default is given in brackets as (small, tunas).

  mobiledets-search --search_space=ibn_fused_tucker --train_data=data/records \\
    --latency_model=latency_model.json --latency_target=1.5e9 --model_dir=runs/search --steps=2000

With the settings of the released TuNAS code:

  mobiledets-search --preset=tunas --train_data=data/records --latency_model=latency_model.json \\
    --latency_target=1.5e9 --model_dir=runs/tunas

For several devices in one run, each with its own controller, best network and Pareto set:

  mobiledets-search --train_data=data/records --model_dir=runs/two --latency_model=hexagon.json \\
    --latency_target=0.4 --latency_model=ethos_u65.json --latency_target=8
"""


def main() -> None:
    """Checks the flags, then runs the search."""
    from mobiledets_tf import api
    from mobiledets_tf.search import presets
    from mobiledets_tf.search.options import SearchOptions

    kernels = space_flags.kernel_sizes(FLAGS)
    options = app.options(FLAGS, SearchOptions, kernel_sizes=kernels)
    options.check()
    models = options.latency_models()
    if presets.changes(FLAGS.preset):
        print(f"preset {FLAGS.preset}, changes from tunas: {presets.changes(FLAGS.preset)}", flush=True)
    found = api.search(options)
    print(f"searched to step {options.with_preset().steps}: {FLAGS.model_dir}")
    decisions = found.origin.decisions if found.origin else ()
    for model, target in zip(models, options.targets, strict=True):
        cost = model.predict_one(decisions)
        print(f"{model.device}: cost {cost:,.6g} {model.unit} ({model.kind}), target {target:,.6g}")


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
