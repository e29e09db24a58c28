"""Describes a fitted latency model: metadata of its file, a text report and plots."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobiledets_tf.files import atomic_path
from mobiledets_tf.latency import fit as fitting
from mobiledets_tf.latency import samples as sample_files
from mobiledets_tf.latency.fit import Fit
from mobiledets_tf.latency.model import LatencyModel, save
from mobiledets_tf.latency.samples import Samples


def described(fit: Fit, measured: Sequence[Samples], command: str) -> LatencyModel:
    """Returns the model with the metadata for its file: versions, command, samples, held-out errors.

    The entry `held_out` has the errors of networks inside the band, its entry `whole_space` those of all
    networks, and its entry `published` those of networks around each published one. All errors are on
    networks that the model was not fitted to.

    Args:
      fit: the fit to describe.
      measured: the files of samples that it was fitted to.
      command: the command that reproduces the fit.
    """
    headers = [samples.header for samples in measured]
    header, failed = headers[0], sum(samples.failed for samples in measured)
    held_out = fit.inside.to_dict() | {
        "whole_space": fit.whole.to_dict(),
        "published": {name: figures.to_dict() for name, figures in fit.published.items()},
        "by": "5-fold cross-validation",
    }
    info = {
        "versions": header["versions"],
        "command": command,
        "measured_by": [_measure_command(samples.header, samples.networks) for samples in measured],
        "samples": {
            "measured": len(fit.measured),
            "failed": failed,
            "drawn": [{"seed": h["seed"], "sampling": h["sampling"]} for h in headers],
        },
        "method": fit.method,
        "mean_error_pct_by_method": {name: round(error, 4) for name, error in fit.compared.items()},
        "held_out": held_out,
        "learning_curve": [
            {"fitted_to": count, "mean_abs_pct_error": round(error, 4)} for count, error in fit.curve
        ],
    }
    if "measured_with" in header:
        info["measured_with"] = header["measured_with"]
    return dataclasses.replace(fit.model, info=info)


def write(
    measured: Sequence[Samples],
    output: str | os.PathLike,
    band: tuple[float, float] | None,
    command: str,
) -> tuple[LatencyModel, Fit]:
    """Fits a latency model to samples; writes the model, and a plot of its errors (.png) beside it.

    Args:
      measured: samples of one device and space.
      output: path of the model (.json).
      band: range (low, high) in ms in which the held-out error is evaluated; by default a range around the
        published networks of the space.
      command: the command that reproduces the fit.

    Raises:
      InputError: there are too few networks, or none inside the band.
    """
    header = measured[0].header
    space = sample_files.space_of(header)
    fitted = fitting.fit(header, space, *sample_files.joined(measured), band)
    model = described(fitted, measured, command)
    save(model, output)
    draw(model, fitted, Path(output).with_suffix(".png"))
    return model, fitted


def _measure_command(header: dict[str, Any], count: int) -> str:
    """Returns the command that reproduces a file of samples."""
    space, sampling = header["search_space"], header["sampling"]
    if sampling.startswith("band "):
        low, _, high, _ = sampling.removeprefix("band ").split()
        sampling = f"band --band={low},{high} --model=FIRST_MODEL.json"
    return (
        f"mobiledets-latency --mode=measure --device={header['device']} --variant={header['variant']} "
        f"--search_space={space['name']} --kernel_sizes={','.join(map(str, space['kernel_sizes']))} "
        f"--depth_multiplier={space['depth_multiplier']:g} --image_size={header['image_size'][0]} "
        f"--num_classes={header['num_classes']} --head={header['head']} --sampling={sampling} "
        f"--seed={header['seed']} --networks={count} --output=SAMPLES.jsonl"
    )


def as_text(model: LatencyModel, fit: Fit) -> str:
    """Returns a report of the fit in a few lines of text."""
    space = model.space
    size = "x".join(map(str, model.image_size))
    lines = [
        f"{model.title}, space {space.name} ({space.hash}), {size}, {model.num_classes} classes, "
        f"head {model.head}",
        f"method {fit.method}; held-out mean error by method: "
        + ", ".join(f"{name} {error:.2f} %" for name, error in fit.compared.items()),
        f"held-out errors, all networks: {fit.whole.line(model.unit)}",
        f"held-out errors, in the band:  {fit.inside.line(model.unit)}",
    ]
    for name, figures in fit.published.items():
        lines.append(f"held-out errors, around {name}: {figures.line(model.unit)}")
    if fit.curve:
        curve = ", ".join(f"{count}: {error:.2f} %" for count, error in fit.curve)
        lines.append(f"held-out mean error by number of networks fitted to: {curve}")
    return "\n".join(lines)


def draw(model: LatencyModel, fit: Fit, path: str | os.PathLike) -> None:
    """Writes a PNG with predicted against measured latency and the learning curve, atomically."""
    figure, (left, right) = _figure(2)
    low, high = min(fit.measured.min(), fit.predicted.min()), max(fit.measured.max(), fit.predicted.max())
    left.axvspan(*fit.inside.band, color="0.93", label="band")
    left.plot([low, high], [low, high], color="0.6", linewidth=1)
    left.scatter(fit.measured, fit.predicted, s=9, alpha=0.7)
    figures = fit.inside
    left.set(
        xscale="log",
        yscale="log",
        xlabel=f"{model.kind}, ms",
        ylabel="predicted (held out), ms",
        title=f"{model.title}, {model.space.name}\nin the band: R2 {figures.r2:.4f}, Spearman "
        f"{figures.spearman:.4f}, mean error {figures.mean_abs_pct_error:.1f} %",
    )
    left.legend(loc="upper left", frameon=False)
    right.plot(*zip(*fit.curve, strict=True), marker="o") if fit.curve else right.set_axis_off()
    right.set(xlabel="number of networks fitted to", ylabel="held-out mean error, %", ylim=(0, None))
    _save(figure, path)


def draw_parts(title: str, unit: str, columns: dict[str, dict[str, float]], path: str | os.PathLike) -> None:
    """Writes a PNG with the cost of each part of one or several networks as bars, atomically.

    Args:
      title: title of the plot.
      unit: unit of the costs.
      columns: mapping from network name to part to cost.
      path: path of the PNG file.
    """
    figure, (axes,) = _figure(1, width=11)
    names = list(dict.fromkeys(part for parts in columns.values() for part in parts))
    width = 0.8 / len(columns)
    for number, (network, parts) in enumerate(columns.items()):
        places = [i + (number - (len(columns) - 1) / 2) * width for i in range(len(names))]
        axes.bar(places, [parts.get(name, 0.0) for name in names], width, label=network)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set(ylabel=unit, title=title)
    axes.legend(frameon=False)
    _save(figure, path)


def _figure(count: int, width: float = 10.0) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=(width, 4.6), squeeze=False, layout="constrained")
    return figure, axes[0]


def _save(figure: Any, path: str | os.PathLike) -> None:
    from matplotlib import pyplot

    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    pyplot.close(figure)
