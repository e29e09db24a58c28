"""`mobiledets-search`: searches a detector for a latency target, on one device or several."""

import sys

from absl import flags

from mobiledets_tf.cli import app, strategy_flags
from mobiledets_tf.errors import InputError
from mobiledets_tf.search_space import SPACES

FLAGS = flags.FlagValues()

flags.DEFINE_enum("search_space", "ibn_fused_tucker", SPACES, "Which blocks are offered.", flag_values=FLAGS)
flags.DEFINE_list("kernel_sizes", ["3", "5"], "Of the space; 3 alone is the DSP variant.", flag_values=FLAGS)
flags.DEFINE_string("train_data", None, "Converted folder, or a pattern of TFRecords.", flag_values=FLAGS)
flags.DEFINE_multi_string(
    "latency_model", None, "Model of mobiledets-latency, for the space; once for each device.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_multi_float(
    "latency_target", None, "Cost to reach, in the unit of the model; once for each --latency_model.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string("model_dir", None, "Folder of the search; goes on where it stopped.", flag_values=FLAGS)
flags.DEFINE_string(
    "steer_by", None, "Device whose controller proposes networks; default: each device's, in turns.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "preset", "tunas", ("tunas", "small"), "Values of flags that are not given: as released, or for a small "
    "data set and some hundred steps.", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "algorithm", "tunas", ("tunas", "random"), "random draws networks evenly from --latency_band.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_float(
    "latency_band", 0.03, "Distance from the target that random and extraction by target allow, as a share.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "extraction", "argmax", ("argmax", "target"), "The likeliest option of each decision, or the likeliest "
    "network in the latency band.", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer("steps", 50000, "Search steps.", 1, flag_values=FLAGS)
flags.DEFINE_integer("image_size", 320, "Side of the square input, in pixels.", flag_values=FLAGS)
flags.DEFINE_float("depth_multiplier", 1.0, "Scales all widths of the space.", flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 16, "Training images of a replica and step.", 1, flag_values=FLAGS)
flags.DEFINE_integer(
    "rl_batch_multiplier", 4, "Held-out images for one reward, in training batches.", 1, flag_values=FLAGS
)
flags.DEFINE_enum("quality", "AP", ("AP", "AP50"), "What the reward counts.", flag_values=FLAGS)
flags.DEFINE_enum("reward", "abs", ("abs", "mnas", "mnas_hard"), "How cost counts in it.", flag_values=FLAGS)
flags.DEFINE_float("beta", -0.1, "Weight or exponent of the cost in the reward.", None, 0, flag_values=FLAGS)
flags.DEFINE_float("learning_rate", 0.1, "Of the shared weights.", 0, flag_values=FLAGS)
flags.DEFINE_float("controller_learning_rate", 4.8e-3, "Of the policy (TuNAS).", 0, flag_values=FLAGS)
flags.DEFINE_float("entropy_weight", 0.0, "Keeps the policy open (TuNAS: 0).", 0, flag_values=FLAGS)
flags.DEFINE_float("op_warmup_fraction", 0.25, "Share of steps with op warm-up.", flag_values=FLAGS)
flags.DEFINE_float("filter_warmup_fraction", 0.25, "Share of steps with filter warm-up.", flag_values=FLAGS)
flags.DEFINE_float("rl_delay_fraction", 0.25, "Share of steps before the policy learns.", flag_values=FLAGS)
flags.DEFINE_float("path_dropout", 0.0, "Share of skippable layers left out in training.", flag_values=FLAGS)
flags.DEFINE_enum(
    "weight_update", "lazy", ("lazy", "dense"), "lazy moves the sampled weights only; dense moves all by "
    "their momentum (TuNAS).", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "execution", "sliced", ("sliced", "masked"), "Cut weights, or mask them (static shapes, for TPUs).",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_bool(
    "measure_finalists", True, "Measure the finalists on the models' devices, where they can be reached.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer("checkpoint_every", 50, "Steps between saved states.", 1, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Of weights, data order and samples.", 0, 2**31 - 1, flag_values=FLAGS)
flags.DEFINE_bool("deterministic", False, "Deterministic operations: slower, repeatable.", flag_values=FLAGS)
strategy_flags.define(FLAGS)
for _name in ("train_data", "latency_model", "latency_target", "model_dir"):
    flags.mark_flag_as_required(_name, flag_values=FLAGS)

DESCRIPTION = """
Searches the space for a detector near the latency target; writes architecture.json,
search_report.json and search_report.png into --model_dir, and TensorBoard summaries.

  mobiledets-search --search_space=ibn_fused_tucker --train_data=data/records \\
    --latency_model=latency_model.json --latency_target=1.5e9 --model_dir=runs/search --steps=50000

Several devices in one run, each with its own controller, best network and Pareto set:

  mobiledets-search --train_data=data/records --model_dir=runs/two --latency_model=hexagon.json \\
    --latency_target=0.4 --latency_model=ethos_u65.json --latency_target=8
"""


def main() -> None:
    """Checks the flags, then searches."""
    from mobiledets_tf.search import presets

    _check_flags()
    chosen = {
        name: FLAGS[name].value if FLAGS[name].present else value
        for name, value in presets.get_preset(FLAGS.preset).items()
    }
    models = _latency_models()
    from mobiledets_tf.compat import tf
    from mobiledets_tf.replicas import Replicas
    from mobiledets_tf.search import loop, schedule, settings

    search = settings.Search(
        train_data=FLAGS.train_data,
        model_dir=FLAGS.model_dir,
        objectives=tuple(
            settings.Objective(model, target, FLAGS.reward, FLAGS.beta)
            for model, target in zip(models, FLAGS.latency_target, strict=True)
        ),
        schedule=schedule.Schedule(
            steps=FLAGS.steps,
            op_warmup=chosen["op_warmup_fraction"],
            filter_warmup=chosen["filter_warmup_fraction"],
            rl_delay=chosen["rl_delay_fraction"],
            controller_rate=chosen["controller_learning_rate"],
            weight_rate=FLAGS.learning_rate,
        ),
        steered_by=FLAGS.steer_by,
        algorithm=FLAGS.algorithm,
        latency_band=FLAGS.latency_band,
        extraction=chosen["extraction"],
        batch_size=FLAGS.batch_size,
        rl_batch_multiplier=chosen["rl_batch_multiplier"],
        entropy_weight=FLAGS.entropy_weight,
        path_dropout=FLAGS.path_dropout,
        metric=chosen["quality"],
        weight_update=FLAGS.weight_update,
        execution=FLAGS.execution,
        seed=FLAGS.seed,
        checkpoint_every=FLAGS.checkpoint_every,
    )
    if presets.changes(FLAGS.preset):
        print(f"preset {FLAGS.preset}: {presets.changes(FLAGS.preset)}", flush=True)
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = strategy_flags.strategy(FLAGS)
    found = loop.run(search, strategy)
    # The chief writes the report; others may be here before it has.
    if FLAGS.measure_finalists and Replicas(strategy).is_chief:
        _measure_finalists(models)
    print(f"searched to step {FLAGS.steps}: {FLAGS.model_dir}")
    for model, target in zip(models, FLAGS.latency_target, strict=True):
        cost = model.predict_one(found.origin.decisions)
        print(f"{model.device}: cost {cost:,.6g} {model.unit} ({model.kind}), target {target:,.6g}")


def _measure_finalists(models: list) -> None:
    """Writes a measured time beside the predicted cost of each finalist in the report."""
    from pathlib import Path

    import numpy as np

    from mobiledets_tf.files import read_json, write_json
    from tflite_export import devices
    from tflite_export.measuring import measured_beside_predicted

    path = Path(FLAGS.model_dir) / "search_report.json"
    report = read_json(path, "search report")
    for model, entry in zip(models, report["devices"], strict=True):
        if model.device not in devices.TIMING:
            continue
        finalists = entry["finalists"]
        try:
            rows = list(measured_beside_predicted(model, [np.array(f["decisions"]) for f in finalists]))
        except InputError as error:
            # The network is found and written; that a device is out of reach is only said.
            print(f"finalists not measured on {model.title}: {error}", file=sys.stderr)
            continue
        for finalist, row in zip(finalists, rows, strict=True):
            finalist["measured"], finalist["failed"] = row.get("measured"), row.get("failed")
        errors = [abs(row["error_pct"]) for row in rows if "error_pct" in row]
        if errors:
            entry["finalists_mean_abs_pct_error"] = float(np.mean(errors))
            print(
                f"{model.title}: {len(errors)} finalists measured again, "
                f"prediction off by {np.mean(errors):.1f} % on average"
            )
    write_json(path, report)


def _check_flags() -> None:
    """Finds what can be found without TensorFlow."""
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
    if FLAGS.distribution_strategy == "tpu" and FLAGS.execution != "masked":
        raise InputError("--distribution_strategy=tpu needs --execution=masked: TPUs take static shapes")


def _latency_models() -> list:
    from mobiledets_tf import latency, search_space

    try:
        kernels = tuple(int(size) for size in FLAGS.kernel_sizes)
    except ValueError as error:
        raise InputError(f"--kernel_sizes={','.join(FLAGS.kernel_sizes)}: allowed are 3, 5 or 3,5") from error
    space = search_space.get_space(FLAGS.search_space, kernels, FLAGS.depth_multiplier)
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
