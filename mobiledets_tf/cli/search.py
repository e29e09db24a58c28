"""`mobiledets-search`: searches for a detector near a latency target, on one or several devices."""

import sys

from absl import flags

from mobiledets_tf.cli import app, space_flags, strategy_flags, weight_flags
from mobiledets_tf.errors import InputError

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


# Flags that are settings of a search under the same name.
_SETTINGS = (
    "train_data",
    "model_dir",
    "algorithm",
    "region",
    "published",
    "mutation_rate",
    "population",
    "children",
    "rounds",
    "extraction",
    "finalists",
    "finalist_steps",
    "finalist_start",
    "batch_size",
    "rl_batch_multiplier",
    "entropy_weight",
    "path_dropout",
    "quality_images",
    "judge_images",
    "weight_update",
    "execution",
    "seed",
    "checkpoint_every",
)


def main() -> None:
    """Checks the flags, then runs the search."""
    from mobiledets_tf.search import presets

    _check_flags()
    values = {name: FLAGS[name].value for name in FLAGS}
    preset = presets.get_preset(FLAGS.preset)
    values |= {name: value for name, value in preset.items() if values[name] is None}
    models = _latency_models()
    # TensorFlow is loaded from here on.
    from mobiledets_tf.compat import tf
    from mobiledets_tf.search import loop
    from tflite_export.devices import measuring

    search = _settings(values, models)
    if presets.changes(FLAGS.preset):
        print(f"preset {FLAGS.preset}: {presets.changes(FLAGS.preset)}", flush=True)
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = strategy_flags.strategy(FLAGS)
    found = loop.run(search, strategy, measuring.finalist_times if FLAGS.measure_finalists else None)
    print(f"searched to step {search.schedule.steps}: {FLAGS.model_dir}")
    for model, target in zip(models, FLAGS.latency_target, strict=True):
        cost = model.predict_one(found.origin.decisions)
        print(f"{model.device}: cost {cost:,.6g} {model.unit} ({model.kind}), target {target:,.6g}")


def _settings(values: dict, models: list):
    """Returns the settings of the search, from the values of all flags and the latency models."""
    from mobiledets_tf.search import known, schedule, seeding, settings

    initial = None
    if FLAGS.init_from is not None:
        initial = seeding.read(weight_flags.local(FLAGS.init_from, FLAGS.weights_cache), models[0])
    return settings.Search(
        **{name: values[name] for name in _SETTINGS},
        objectives=tuple(
            settings.Objective(model, target, values["reward"], FLAGS.beta, FLAGS.latency_band)
            for model, target in zip(models, FLAGS.latency_target, strict=True)
        ),
        schedule=schedule.Schedule(
            steps=values["steps"],
            op_warmup=values["op_warmup_fraction"],
            filter_warmup=values["filter_warmup_fraction"],
            rl_delay=values["rl_delay_fraction"],
            controller_rate=values["controller_learning_rate"],
            weight_rate=FLAGS.learning_rate,
        ),
        steered_by=FLAGS.steer_by,
        candidates=(*known.candidates(FLAGS.candidates), *seeding.candidates(initial)),
        finalist_rate=FLAGS.finalist_learning_rate,
        metric=values["quality"],
        initial=initial,
    )


def _check_flags() -> None:
    """Checks the flags as far as possible without TensorFlow."""
    models, targets = FLAGS.latency_model, FLAGS.latency_target
    if len(models) != len(targets):
        raise InputError(
            f"--latency_model is given {len(models)} times, --latency_target {len(targets)} times: "
            "each device needs both"
        )
    for target in targets:
        if target <= 0:
            raise InputError(f"--latency_target={target}: allowed are numbers above 0")
    strategy_flags.check(FLAGS)
    if FLAGS.init_from is not None:
        weight_flags.check("init_from", FLAGS.init_from)
    if FLAGS.distribution_strategy == "tpu" and FLAGS.execution != "masked":
        raise InputError("--distribution_strategy=tpu needs --execution=masked: TPUs take static shapes")


def _latency_models() -> list:
    from mobiledets_tf import latency

    space = space_flags.space(FLAGS)
    models = []
    for path in FLAGS.latency_model:
        model = latency.load(path)
        model.require_space(space)
        if model.image_size != (FLAGS.image_size, FLAGS.image_size):
            raise InputError(
                f"--image_size={FLAGS.image_size}: the latency model is of "
                f"{model.image_size[0]}x{model.image_size[1]}"
            )
        models.append(model)
    return models


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
