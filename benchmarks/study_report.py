"""Writes the report of the study: tables as Markdown and JSON, and a self-contained HTML page."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import intervals
import study_tables
from study_plan import Results, Unit
from study_tables import Figures, Finding, Table

from mobiledets_tf import architecture
from mobiledets_tf.architecture import drawing
from mobiledets_tf.files import atomic_path, read_json, write_artefact, write_text
from mobiledets_tf.html_parts import document, picture, section, table, text

CLAIM = (
    "MobileDets (arXiv 2004.14525) claims that networks of inverted bottlenecks alone are not the best for "
    "accelerators: networks with full convolutions (fused inverted bottlenecks and Tucker layers) are more "
    "accurate at equal latency. It also claims that a network found for one device is not the best on "
    "another. If multiply-adds are the cost, full convolutions should not help.",
)
LIMITS = (
    "Latencies on hexagon are simulated by the QNN compiler, those on ethos_u are estimated by the Vela "
    "compiler. Both omit the driver, the transfer of images, other work on the chip and its temperature; "
    "they rank networks, but say little about the latency in a product.",
    "A network found by one search is one random draw. Intervals over trainings do not include the "
    "variation between searches; intervals over targets and searches do, from few values.",
    "Small networks on small images spend much of their simulated latency in parts that all networks have "
    "in common, so differences between spaces are smaller than at full size.",
    "The searches used only the drawn sample. Networks are timed with its ten classes; a head for other "
    "data has another number of classes and a slightly different latency.",
    "The settings of search and training were chosen on the drawn sample with the same published networks.",
)
_MARKERS = {"ibn": ("o", "white"), "ibn_fused": ("s", "0.6"), "ibn_fused_tucker": ("^", "black")}
_COLUMNS = 4


def write(units: list[Unit], results: Results, scale: str, command: str) -> Path:
    """Writes `index.html`, `report.md`, `report.json` and plots of the finished units.

    Args:
      units: the plan.
      results: the work folder.
      scale: name of the sizes.
      command: the command that reproduces the study.

    Returns:
      The path of the page.
    """
    figures, folder = Figures(units, results), results.work_dir
    gains, about_spaces = study_tables.gains(figures)
    transfer, about_devices = study_tables.transfer(figures)
    tables = [
        gains,
        transfer,
        study_tables.networks(figures),
        study_tables.searches(figures),
        study_tables.models(figures),
    ]
    findings = [*about_spaces, *about_devices]
    settings = read_json(folder / "settings.json", "settings of the study")
    seen, unseen = _words(figures, findings)
    size = (settings["image_size"], settings["image_size"])
    pareto = _pareto(figures, folder / "pareto.png")
    drawings = _drawings(figures, folder, size)
    write_artefact(
        folder / "report.json",
        {
            "settings": settings,
            "command": command,
            "finished": figures.finished,
            "units": len(units),
            "seen": seen,
            "not_seen": unseen,
            "tables": [dataclasses.asdict(one) for one in tables],
        },
    )
    write_text(folder / "report.md", _markdown(settings, command, seen, unseen, tables))
    body = "\n".join(
        [
            f"<h1>Full convolutions on accelerators: the study at scale {text(scale)}</h1>",
            section("The claim", *(_paragraph(words) for words in CLAIM)),
            section("Results", _items(seen)),
            section("Open questions", _items(unseen)),
            section("AP against cost", *(picture(path, _PARETO_WORDS) for path in pareto)),
            *(section(one.title, _paragraph(one.words), table(one.columns, one.rows)) for one in tables),
            section(
                "Networks found",
                *(picture(path, "One bar per layer, by type and output width.") for path in drawings),
            ),
            section("Limits", _items(LIMITS)),
            section("Sizes", table(("setting", "value"), [(k, str(v)) for k, v in settings.items()])),
            section("Command that reproduces the study", f"<p><code>{text(command)}</code></p>"),
        ]
    )
    write_text(folder / "index.html", document("Full convolutions on accelerators", body))
    return folder / "index.html"


def _words(figures: Figures, findings: list[Finding]) -> tuple[list[str], list[str]]:
    """Returns sentences on the questions that the figures decide, and on those that they leave open."""
    seen = [finding.sentence for finding in findings if finding.is_decided]
    unseen = [f"Undecided: {finding.sentence}" for finding in findings if not finding.is_decided]
    unseen += [f"{unit}: {reason}." for unit, reason in figures.failed.items()]
    open_units = len(figures.units) - figures.finished
    if open_units:
        unseen.append(f"{open_units} of {len(figures.units)} units are not finished.")
    return seen or ["None yet: every interval contains 0."], unseen or ["None: all comparisons are decided."]


def _markdown(
    settings: dict[str, Any], command: str, seen: list[str], unseen: list[str], tables: list[Table]
) -> str:
    lines = [f"Settings: {', '.join(f'{k} {v}' for k, v in settings.items())}.", "", f"    {command}", ""]
    for title, items in (("Results", seen), ("Open questions", unseen)):
        lines += [f"## {title}", *(f"- {item}" for item in items), ""]
    for one in tables:
        lines += [f"## {one.title}", one.words, ""]
        lines += [_row(one.columns), _row(["---"] * len(one.columns)), *map(_row, one.rows), ""]
    return "\n".join(lines)


def _row(cells) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _items(items) -> str:
    return "\n".join(["<ul>", *(f"<li>{_code(item)}</li>" for item in items), "</ul>"])


def _paragraph(words: str) -> str:
    return f"<p>{_code(words)}</p>"


def _code(words: str) -> str:
    """Returns escaped text in which words between backticks are code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", text(words))


_PARETO_WORDS = (
    "AP after stand-alone training against the cost of the network. A line joins the networks found for "
    "this cost in one space, from target to target; bars extend from the lowest to the highest training. "
    "Small crosses are networks found for other costs, stars are the published networks."
)


def _pareto(figures: Figures, path: Path) -> list[Path]:
    """Draws a row of plots for each data set, one per cost; returns the paths of the files written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shape = (len(figures.data), len(figures.costs))
    page = Figure(figsize=(4.2 * shape[1], 3.8 * shape[0]), layout="constrained", dpi=110)
    axes = page.subplots(*shape, squeeze=False)
    for row, data in zip(axes, figures.data, strict=True):
        for axis, cost in zip(row, figures.costs, strict=True):
            _draw_pareto(axis, figures, data, cost)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(page).print_png(temporary)
    return [path]


def _draw_pareto(axis, figures: Figures, data: str, cost: str) -> None:
    for space in figures.spaces:
        points = [_point(figures, data, name, cost) for _, name in figures.found(cost, space)]
        points = sorted(point for point in points if point)
        if points:
            x, y, low, high = (list(values) for values in zip(*points, strict=True))
            marker, face = _MARKERS[space]
            axis.errorbar(
                x,
                y,
                yerr=(low, high),
                fmt="-",
                marker=marker,
                color="black",
                markerfacecolor=face,
                linewidth=0.8,
                capsize=2,
                label=space,
            )
    for name in figures.networks:
        point = _point(figures, data, name, cost)
        if point is None:
            continue
        if name not in figures.searches:
            axis.plot(*point[:2], "*", color="black", markersize=8)
            axis.annotate(
                name.removeprefix("published-"),
                point[:2],
                fontsize=7,
                xytext=(3, 3),
                textcoords="offset points",
            )
        elif figures.about[name]["cost"] != cost:
            axis.plot(*point[:2], "x", color="0.5", markersize=4)
    unit = "multiply-adds" if cost == "madds" else "ms"
    axis.set(title=f"{data}, {figures.titled(cost)}", xlabel=unit, ylabel="AP")
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize=7)


def _point(figures: Figures, data: str, name: str, cost: str) -> tuple[float, float, float, float] | None:
    """Returns (cost, mean AP, distance to the lowest AP, distance to the highest AP) of a network."""
    found, at = intervals.mean(list(figures.ap(data, name).values())), figures.cost(name, cost)
    if found is None or at is None:
        return None
    values, mean = found["values"], found["mean"]
    # The mean of equal values may be off by a rounding error, which must not make a bar negative.
    return at, mean, max(0.0, mean - min(values)), max(0.0, max(values) - mean)


def _drawings(figures: Figures, folder: Path, size: tuple[int, int]) -> list[Path]:
    """Draws the networks found, a few in each file; returns the paths."""
    names = [name for name in figures.networks if name in figures.searches]
    paths = []
    for first in range(0, len(names), _COLUMNS):
        chosen = [
            dataclasses.replace(architecture.load(figures.networks[name]), name=name)
            for name in names[first : first + _COLUMNS]
        ]
        paths.append(folder / f"networks_{first // _COLUMNS}.png")
        drawing.draw(chosen, paths[-1], size, 10)
    return paths
