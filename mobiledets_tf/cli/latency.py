"""`mobiledets-latency`: measures networks on a device; fits, checks and shows latency models."""

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from mobiledets_tf import architecture, latency
from mobiledets_tf.cli import app, space_flags
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.latency import samples
from mobiledets_tf.search_space import encode
from tflite_export.devices import ELSEWHERE, TIMING

if TYPE_CHECKING:
    from tflite_export.devices.options import MeasureOptions

FLAGS = flags.FlagValues()

flags.DEFINE_enum(
    "mode",
    None,
    ["measure", "fit", "check", "show"],
    "Task to run: measure networks of a search space on a device, fit a latency model to them, check "
    "a model, or show its predictions.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "device",
    "madds",
    ["madds", *TIMING, *ELSEWHERE],
    "measure: device to measure on; csv and adb write files to be timed elsewhere. fit: madds counts "
    "multiply-adds exactly and needs no samples; with --samples, the device is read from them.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "variant",
    None,
    "measure: chip, for example u55-256, u65-512 or u85-1024 for ethos_u; a name of your choice for "
    "csv and adb.",
    flag_values=FLAGS,
)
space_flags.define(FLAGS)
flags.DEFINE_string(
    "output",
    None,
    "measure: file of samples (.jsonl), or a folder for csv and adb. fit: latency model (.json), with"
    " a plot (.png) written beside it. show: optional plot (.png).",
    flag_values=FLAGS,
)
flags.DEFINE_integer("image_size", 320, "Side of the square input, in pixels.", flag_values=FLAGS)
flags.DEFINE_integer("num_classes", 90, "Number of classes without the background.", flag_values=FLAGS)
flags.DEFINE_enum(
    "head",
    "ssdlite",
    latency.HEADS,
    "measure: measure the whole detector (ssdlite) or only the backbone (none).",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "networks",
    None,
    "measure: total number of networks in the file (default 200). check: number of new networks to "
    "measure (default 30).",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "sampling",
    "spread",
    samples.SAMPLINGS,
    "measure: uniform draws each decision uniformly; spread skews half of the networks towards narrow"
    " or wide layers; band keeps those networks of spread whose latency --model predicts to be inside"
    " --band.",
    flag_values=FLAGS,
)
flags.DEFINE_list(
    "band",
    None,
    "Latency range LOW,HIGH in ms. measure: see --sampling=band; fit, check with --samples: range in "
    "which held-out errors are evaluated.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "seed", None, "Random seed for drawing networks; default: 0, or 1000000 for check.", 0, flag_values=FLAGS
)
flags.DEFINE_float(
    "timeout_s", 120.0, "measure, check: time limit per network, in seconds.", 0.1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "threads", 1, "measure: number of CPU threads for host_cpu, coral, csv and adb.", 1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "runs",
    50,
    "measure: number of inferences per network for host_cpu, coral, csv and adb.",
    1,
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "results",
    None,
    "measure with csv or adb: results to convert to samples: a CSV file with the columns network,ms, "
    "or 'logs' for the logs that the generated commands wrote into the folder --output.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "samples",
    [],
    "fit, check: file of samples written by --mode=measure; if a network was measured several times, "
    "its lowest time is used.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "refine",
    None,
    "fit: JSON file with networks, for example the report of a search; they are measured and added to"
    " the samples.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "model",
    [],
    "check, show, --sampling=band: latency model written by --mode=fit; show accepts several.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_error_pct",
    None,
    "check: largest allowed mean error, in percent; default: twice the model's held-out error, at least 2.",
    0,
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "architecture",
    [],
    "show: published network (cpu, edgetpu, dsp, gpu) or architecture file; two are shown side by "
    "side. Default: all published networks on all shipped models.",
    flag_values=FLAGS,
)
flags.mark_flag_as_required("mode", flag_values=FLAGS)

DESCRIPTION = """
Makes a latency model of a device: measure networks of a search space, fit a model to them, check it later
against new measurements, and show its predictions.

  mobiledets-latency --mode=measure --device=hexagon --search_space=ibn --networks=400 --output=hexagon.jsonl
  mobiledets-latency --mode=fit --samples=hexagon.jsonl --output=latency_model.json
  mobiledets-latency --mode=check --model=latency_model.json
  mobiledets-latency --mode=show --model=latency_model.json --architecture=edgetpu --architecture=dsp

For your own phone or board, --mode=measure writes .tflite files, a manifest and the commands to run there,
and then reads the results:

  mobiledets-latency --mode=measure --device=adb --variant=my_phone --networks=200 --output=phone
  sh phone/benchmark.sh
  mobiledets-latency --mode=measure --device=adb --output=phone --results=logs --samples=phone.jsonl

To use multiply-adds in place of latency, write an exact model of them; it needs no measurements:

  mobiledets-latency --mode=fit --device=madds --output=latency_model.json
"""


def main() -> None:
    """Runs the mode that --mode names."""
    modes = {"measure": _measure, "fit": _fit, "check": _check, "show": _show}
    modes[FLAGS.mode]()


def _band() -> tuple[float, float] | None:
    if FLAGS.band is None:
        return None
    try:
        low, high = (float(side) for side in FLAGS.band)
    except ValueError:
        low, high = 0.0, 0.0
    if not 0 < low < high < float("inf"):
        raise InputError(f"--band={','.join(FLAGS.band)}; allowed: two numbers LOW,HIGH in ms")
    return low, high


def _measure() -> None:
    output = app.needed(FLAGS, "output")
    if FLAGS.device == "madds":
        raise InputError(f"--mode=measure requires --device; allowed: {', '.join((*TIMING, *ELSEWHERE))}")
    if FLAGS.device in ELSEWHERE:
        _elsewhere(output)
        return
    from tqdm import tqdm

    from mobiledets_tf import api

    options = _measure_options()

    def progress(items: range, **kwargs: Any) -> Iterable:
        return tqdm(items, **kwargs, dynamic_ncols=True, total=options.networks, initial=items.start)

    done = api.measure_latency(options, progress)
    count = done["measured"] + done["failed"]
    rate = f", {3600 * count / done['seconds']:,.0f} an hour" if count else ""
    print(
        f"{output}: {done['measured']} networks {done['kind']} on {done['device']}, "
        f"{done['failed']} failed{rate}"
    )


def _measure_options() -> "MeasureOptions":
    from tflite_export.devices.options import MeasureOptions

    if FLAGS.sampling == "band":
        app.needed(FLAGS, "band")
        _one_path()
    return app.options(
        FLAGS,
        MeasureOptions,
        kernel_sizes=space_flags.kernel_sizes(FLAGS),
        networks=FLAGS.networks or 200,
        band=_band(),
        model=_one_path() if FLAGS.sampling == "band" else None,
        seed=FLAGS.seed or 0,
    )


def _elsewhere(folder: str) -> None:
    from tqdm import tqdm

    from tflite_export.devices import measuring, phone

    if FLAGS.results:
        target = FLAGS.samples[0] if FLAGS.samples else str(Path(folder) / "samples.jsonl")
        results = None if FLAGS.results == "logs" else FLAGS.results
        returned, missing = phone.write_samples(folder, results, target)
        print(f"{target}: {returned} networks returned, {missing} missing")
        if not results and (strange := phone.logs_not_understood(folder)):
            print(f"logs that could not be parsed: {len(strange)} ({strange[0]})", file=sys.stderr)
        return
    options = _measure_options()
    target = measuring.Target.of_options(options)
    header = measuring.make_header(target, "measured", {}, options.seed, options.sampling_text())
    networks, count = options.proposals(), options.networks
    phone.write(
        folder,
        header,
        target.space,
        target.settings,
        (next(networks) for _ in range(count)),
        FLAGS.device == "adb",
        FLAGS.threads,
        FLAGS.runs,
        lambda items: tqdm(items, desc="files", unit="file", dynamic_ncols=True),
    )
    print(
        f"{folder}: {count} networks; run {folder}/{phone.COMMANDS}, then run this command again with "
        "--results"
    )


def _fit() -> None:
    output = app.needed(FLAGS, "output")
    if not FLAGS.samples:
        _fit_madds(output)
        return
    from mobiledets_tf.latency import fit_report

    measured = _read_samples()
    header = measured[0].header
    if FLAGS.refine:
        measured.append(_refined(header, output))
    command = shlex.join(["mobiledets-latency", *_arguments()])
    model, fitted = fit_report.write(measured, output, _band(), command)
    print(fit_report.as_text(model, fitted))


def _arguments() -> list[str]:
    """Returns the flags that were given, in the form of the command line."""
    return [f"--{name}={value}" for name in FLAGS if FLAGS[name].present for value in _values(name)]


def _values(name: str) -> list[str]:
    value = FLAGS[name].value
    if FLAGS[name].flag_type().startswith("multi"):
        return [str(item) for item in value]
    return [",".join(value) if isinstance(value, list) else str(value)]


def _fit_madds(output: str) -> None:
    if FLAGS.device != "madds":
        raise InputError(
            f"--mode=fit --device={FLAGS.device} requires --samples, files that --mode=measure wrote"
        )
    model = latency.madds_model(space_flags.space(FLAGS), FLAGS.image_size, FLAGS.num_classes)
    latency.save(model, output)
    count = model.coefficients.size
    print(f"{output}: device {model.device}, space {model.space.name}, {count} coefficients")


def _read_samples() -> list[samples.Samples]:
    """Reads all files of samples and checks that they match the given flags."""
    found = samples.load_all(FLAGS.samples)
    header = found[0].header
    theirs = {"device": header["device"], "search_space": header["search_space"]["name"]}
    for name, value in theirs.items():
        if FLAGS[name].present and FLAGS[name].value != value:
            raise InputError(
                f"--{name}={FLAGS[name].value}: the samples {FLAGS.samples[0]!r} are of {value!r}"
            )
    return found


def _refined(header: dict, output: str) -> samples.Samples:
    """Measures the networks in a search's report and writes the samples to a file beside the output."""
    from tqdm import tqdm

    from tflite_export.devices import measuring

    path = Path(output).with_name(f"{Path(output).stem}_refined.jsonl")
    found, count = measuring.refine(header, FLAGS.refine, path, FLAGS.timeout_s, tqdm)
    print(f"{path}: {len(found.times)} of {count} networks of {FLAGS.refine} measured")
    return found


def _one_path() -> str:
    paths = app.needed(FLAGS, "model")
    if len(paths) != 1:
        raise InputError(f"--model is given {len(paths)} times; allowed: once")
    return paths[0]


def _one_model() -> latency.LatencyModel:
    return latency.load(_one_path())


def _check() -> None:
    if FLAGS.samples:
        _check_samples()
        return
    from tqdm import tqdm

    from tflite_export.devices import measuring

    model = _one_model()
    # The default seed differs from that of --mode=measure, so that the networks are new to the model.
    seed = 1_000_000 if FLAGS.seed is None else FLAGS.seed
    checked = measuring.check(model, FLAGS.networks or 30, seed, FLAGS.max_error_pct, FLAGS.timeout_s, tqdm)
    print(f"{model.title}, new networks: {checked.figures.line(model.unit)}")
    for package, (before, now) in checked.versions.items():
        print(f"{package}: version {before} when the model was fitted, {now} now")
    if checked.failed:
        print(f"{checked.failed} networks failed")
    error = checked.figures.mean_abs_pct_error
    _hold(error, checked.bound_pct, f"{checked.figures.n} new networks")


def _check_samples() -> None:
    """Checks a model against networks that were measured before and that it was not fitted to."""
    from mobiledets_tf.latency import held_out

    model = _one_model()
    measured = _read_samples()
    header, (decisions, times) = measured[0].header, samples.joined(measured)
    model.require_space(samples.space_of(header))
    ours = {
        "device": model.device,
        "variant": model.variant,
        "kind": model.kind,
        "head": model.head,
        "image_size": list(model.image_size),
        "num_classes": model.num_classes,
    }
    for name, value in ours.items():
        if header[name] != value:
            raise InputError(f"the samples have {name} {header[name]!r}; the model has {value!r}")
    found = held_out.figures(model.predict(decisions), times, _band())
    if not found.n:
        raise InputError(f"no network in the samples takes {found.band[0]:g} to {found.band[1]:g} ms")
    print(f"{model.title}, networks in the samples: {found.line(model.unit)}")
    bound = FLAGS.max_error_pct
    if bound is None:
        bound = held_out.allowed_error_pct(model.info.get("held_out", {}))
    _hold(found.mean_abs_pct_error, bound, f"{found.n} networks in the samples")


def _hold(error: float, bound: float, networks: str) -> None:
    """Prints that the model is accurate enough, or raises CheckFailed."""
    if error > bound:
        raise CheckFailed(
            f"mean error {error:.2f} % on {networks}; allowed: {bound:.2f} %. Measure and fit the model again"
        )
    print(f"check passed: mean error {error:.2f} %, allowed {bound:.2f} %")


def _show() -> None:
    from mobiledets_tf.latency import show

    paths = FLAGS.model or latency.shipped_paths() or app.needed(FLAGS, "model")
    models = [latency.load(path) for path in paths]
    if not FLAGS.architecture:
        print(show.published(models))
        return
    networks = {name: architecture.load(name).scaled(FLAGS.depth_multiplier) for name in FLAGS.architecture}
    for model in models:
        decisions = {name: encode(model.space, network) for name, network in networks.items()}
        print(show.side_by_side(model, decisions))
        for name, network in networks.items():
            exact = architecture.describe(network, model.num_classes, model.image_size)["madds"]
            print(f"multiply-adds of {name}: {exact:,}")
        if FLAGS.output:
            show.draw(model, decisions, _picture(model, len(models)))


def _picture(model: latency.LatencyModel, count: int) -> Path:
    path = Path(FLAGS.output)
    if path.suffix != ".png":
        raise InputError(f"--output={FLAGS.output}: --mode=show writes a .png file")
    name = f"{path.stem}_{model.device}{f'_{model.variant}' if model.variant else ''}.png"
    return path if count == 1 else path.with_name(name)


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
