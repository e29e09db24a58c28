"""`mobiledets-search`: searches for a detector near a latency target, on one or several devices."""

import sys

from absl import flags

from mobiledets_tf.cli import app, space_flags, strategy_flags, weight_flags

FLAGS = flags.FlagValues()

space_flags.define(FLAGS)
flags.DEFINE_string("train_data", None, "Converted folder, or a pattern of TFRecords.", flag_values=FLAGS)
flags.DEFINE_multi_string(
    "latency_model",
    None,
    "Model of mobiledets-latency, for the space; once for each device.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_float(
    "latency_target",
    None,
    "Cost to reach, in the unit of the model; once for each --latency_model.",
    flag_values=FLAGS,
)
flags.DEFINE_string("model_dir", None, "Folder of the search; goes on where it stopped.", flag_values=FLAGS)
flags.DEFINE_string(
    "steer_by",
    None,
    "Device whose controller proposes networks; default: each device's, in turns.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "preset",
    "small",
    ("small", "tunas"),
    "Values of flags that are not given: for a small data set and a "
    "few hundred to a few thousand steps, or TuNAS as released.",
    flag_values=FLAGS,
)
# None stands for the preset's value, which the help text gives in brackets as (small, tunas).
flags.DEFINE_enum(
    "algorithm",
    None,
    ("evolution", "tunas", "random"),
    "Evolves a population, trains a policy, or draws networks and learns nothing (evolution, tunas).",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "region",
    None,
    ("known", "space"),
    "Search round known networks, or the whole space (known, space).",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "published",
    None,
    "Count the published networks, scaled into the latency band, as known (true, false).",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "candidates", [], "Architecture files of your own that count as known networks.", flag_values=FLAGS
)
flags.DEFINE_string(
    "init_from",
    None,
    weight_flags.INIT_FROM + " Their network counts as a known one; with --nopublished "
    "every network drawn is near it.",
    flag_values=FLAGS,
)
weight_flags.define_cache(FLAGS)
flags.DEFINE_float(
    "mutation_rate",
    0.15,
    "Share of a known network's decisions that a mutation draws anew.",
    0,
    1,
    flag_values=FLAGS,
)
flags.DEFINE_integer("population", 16, "Networks that evolution keeps.", 2, flag_values=FLAGS)
flags.DEFINE_integer("children", 16, "New networks of each round of evolution.", 1, flag_values=FLAGS)
flags.DEFINE_integer("rounds", 4, "Rounds of evolution.", 1, flag_values=FLAGS)
flags.DEFINE_float(
    "latency_band", 0.03, "Distance from the target that is allowed, as a share.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "extraction",
    None,
    ("target", "argmax"),
    "The policy's likeliest network in the latency band, or its "
    "likeliest option of each decision (target, argmax).",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "finalists", 8, "Networks compared at the end, the known ones among them.", 1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "finalist_steps",
    None,
    "Training steps of each finalist alone; the better half is trained for as many "
    "again, and so on to the last two; 0 compares them by shared weights (240, 0).",
    0,
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "finalist_start",
    "fresh",
    ("fresh", "shared"),
    "Train finalists from weights as mobiledets-train draws them, or from the search's.",
    flag_values=FLAGS,
)
flags.DEFINE_float("finalist_learning_rate", 0.1, "Of these trainings.", 0, flag_values=FLAGS)
flags.DEFINE_integer("steps", None, "Search steps (480, 50000).", 1, flag_values=FLAGS)
flags.DEFINE_integer("image_size", 320, "Side of the square input, in pixels.", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 16, "Training images of a replica and step.", 1, flag_values=FLAGS)
flags.DEFINE_integer(
    "rl_batch_multiplier",
    None,
    "Images of one batch that quality is taken on, in training batches (2, 4).",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "quality",
    None,
    ("loss", "AP", "AP50"),
    "What the search looks at: the detection loss, or average precision (loss, AP).",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "quality_images",
    None,
    "Held-out images that it is taken on, the same for every network; 0: the next batch (128, 0).",
    0,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "judge_images", 256, "Held-out images, others, that the finalists are compared on.", 1, flag_values=FLAGS
)
flags.DEFINE_enum(
    "reward",
    None,
    ("band", "abs", "mnas", "mnas_hard"),
    "How cost counts: networks are drawn inside the "
    "latency band, or the reward holds their cost (band, abs).",
    flag_values=FLAGS,
)
flags.DEFINE_float("beta", -0.1, "Weight or exponent of the cost in the reward.", None, 0, flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 0.1, "Of the shared weights.", 0, flag_values=FLAGS)
flags.DEFINE_float("controller_learning_rate", None, "Of the policy (0.05, 0.0048).", 0, flag_values=FLAGS)
flags.DEFINE_float("entropy_weight", 0.0, "Keeps the policy open (TuNAS: 0).", 0, flag_values=FLAGS)
flags.DEFINE_float("op_warmup_fraction", None, "Share of steps with op warm-up (0, 0.25).", flag_values=FLAGS)
flags.DEFINE_float(
    "filter_warmup_fraction", None, "Share of steps with filter warm-up (0, 0.25).", flag_values=FLAGS
)
flags.DEFINE_float(
    "rl_delay_fraction",
    None,
    "Share of steps before anything is learnt from (0.25, 0.25).",
    flag_values=FLAGS,
)
flags.DEFINE_float("path_dropout", 0.0, "Share of skippable layers left out in training.", flag_values=FLAGS)
flags.DEFINE_enum(
    "weight_update",
    "lazy",
    ("lazy", "dense"),
    "lazy moves the sampled weights only; dense moves all by their momentum (TuNAS).",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "execution",
    "sliced",
    ("sliced", "masked"),
    "Cut weights, or mask them (static shapes, for TPUs).",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "measure_finalists",
    True,
    "Measure the final population on the models' devices, where they can be "
    "reached, and take the finalists inside the latency band by these times.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("checkpoint_every", 50, "Steps between saved states.", 1, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Of weights, data order and samples.", 0, 2**31 - 1, flag_values=FLAGS)
flags.DEFINE_bool("deterministic", False, "Deterministic operations: slower, repeatable.", flag_values=FLAGS)
strategy_flags.define(FLAGS)
for _name in ("train_data", "latency_model", "latency_target", "model_dir"):
    flags.mark_flag_as_required(_name, flag_values=FLAGS)

DESCRIPTION = """
Searches the space for a detector near the latency target; writes architecture.json, a checkpoint of its
weights, search_report.json and search_report.png into --model_dir, and TensorBoard summaries.

  mobiledets-search --search_space=ibn_fused_tucker --train_data=data/records \\
    --latency_model=latency_model.json --latency_target=1.5e9 --model_dir=runs/search --steps=2000

As TuNAS was released:

  mobiledets-search --preset=tunas --train_data=data/records --latency_model=latency_model.json \\
    --latency_target=1.5e9 --model_dir=runs/tunas

Several devices in one run, each with its own controller, best network and Pareto set:

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
        print(f"preset {FLAGS.preset}: {presets.changes(FLAGS.preset)}", flush=True)
    found = api.search(options)
    print(f"searched to step {options.with_preset().steps}: {FLAGS.model_dir}")
    decisions = found.origin.decisions if found.origin else ()
    for model, target in zip(models, options.targets, strict=True):
        cost = model.predict_one(decisions)
        print(f"{model.device}: cost {cost:,.6g} {model.unit} ({model.kind}), target {target:,.6g}")


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
