"""Figures of a search, readable without colour."""

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mobiledets_tf.files import atomic_path
from mobiledets_tf.search.archive import Archive
from mobiledets_tf.search.settings import Objective, Search
from mobiledets_tf.search_space import SearchSpace

_MARKERS = "os^Dv*Px"
_GREYS = ("black", "0.45", "0.25", "0.6")
# Number of text lines that fit beside the policy.
_LABELS = 85


def draw(
    path: str | os.PathLike,
    search: Search,
    history: Sequence[dict[str, Any]],
    snapshots: Sequence[dict[str, Any]],
    archives: dict[str, Archive],
) -> None:
    """Draws reward, quality, cost / target, loss, entropy, Pareto set and the policy over time.

    The figure is a PNG and is written atomically.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplot_mosaic(
        [["reward", "quality", "policy"], ["cost", "loss", "policy"], ["entropy", "front", "policy"]],
        figsize=(15, 11),
        layout="constrained",
        width_ratios=(1, 1, 1.2),
    )
    paid = [row for row in history if "reward" in row]
    for name, rows, title in (
        ("reward", paid, f"reward ({search.objectives[0].reward})"),
        ("quality", paid, f"{search.metric} on held-out images, shared weights"),
        ("cost", history, "predicted cost / target"),
        ("loss", history, "training loss"),
        ("entropy", history, "policy entropy / uniform"),
    ):
        for number, objective in enumerate(search.steering):
            mine = [row for row in rows if row["device"] == objective.device and name in row]
            _curve(axes[name], mine, name, number, objective)
        axes[name].set(title=title, xlabel="step")
    axes["cost"].axhline(1.0, linestyle="--", color="0.3")
    _front(axes["front"], search, archives)
    first = search.steering[0].device
    draw_policy(axes["policy"], search.latency.space, [s for s in snapshots if s["device"] == first])
    if len(search.steering) > 1:
        axes["reward"].legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    pyplot.close(figure)


def _curve(axis: Any, rows: Sequence[dict[str, Any]], name: str, number: int, objective: Objective) -> None:
    scale = objective.target if name == "cost" else 1.0
    steps, values = [row["step"] for row in rows], [row[name] / scale for row in rows]
    colour = _GREYS[number % len(_GREYS)]
    if name != "entropy":
        axis.plot(steps, values, _MARKERS[number % len(_MARKERS)], color="0.75", markersize=2)
    style = ("-", "--", ":", "-.")[number % 4]
    axis.plot(steps, _smooth(values), style, color=colour, label=objective.device)


def _front(axis: Any, search: Search, archives: dict[str, Archive]) -> None:
    for number, objective in enumerate(search.objectives):
        front = archives[objective.device].front
        costs = [candidate.cost / objective.target for candidate in front]
        axis.plot(
            costs,
            [candidate.quality for candidate in front],
            marker=_MARKERS[number % len(_MARKERS)],
            color=_GREYS[number % len(_GREYS)],
            label=f"{objective.device} ({objective.latency.kind})",
            drawstyle="steps-post",
            markersize=4,
        )
    axis.axvline(1.0, linestyle="--", color="0.3")
    axis.set(title="Pareto set of the networks seen", xlabel="predicted cost / target", ylabel=search.metric)
    axis.legend()


def policy_png(space: SearchSpace, snapshots: Sequence[dict[str, Any]]) -> bytes:
    """Draws only the policy over time; returns the bytes of a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 14), layout="constrained")
    draw_policy(axis, space, snapshots)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=70)
    pyplot.close(figure)
    return buffer.getvalue()


def draw_policy(axis: Any, space: SearchSpace, snapshots: Sequence[dict[str, Any]]) -> None:
    """Draws the probabilities of all options (rows, by decision) over the steps (columns); dark is likely."""
    decisions = space.decisions
    heights = [len(node.choices) for _, node in decisions]
    edges = np.concatenate([[0], np.cumsum(heights)])
    if snapshots:
        columns = [np.concatenate([np.array(row) for row in s["probabilities"]]) for s in snapshots]
        last = max(1, snapshots[-1]["step"])
        axis.imshow(
            np.stack(columns, axis=1),
            aspect="auto",
            cmap="Greys",
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=(0, last, edges[-1], 0),
        )
    for edge in edges[1:-1]:
        axis.axhline(edge, color="0.8", linewidth=0.5)
    places = _apart((edges[1:] + edges[:-1]) / 2, edges[-1] / _LABELS)
    axis.set_yticks(places, [_short(path) for path, _ in decisions], fontsize=8)
    axis.set(title="policy: probability of each option", xlabel="step")


def _apart(places: Sequence[float], distance: float) -> list[float]:
    """Moves places, which are sorted from the top down, so that they are at least `distance` apart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + distance) if moved else place)
    return moved


def _short(path: str) -> str:
    parts = path.split("/")
    if parts[0] != "blocks":
        return path.replace("_", " ")
    block = f"block {int(parts[1]) + 1}"
    return f"{block} filters" if parts[-1] == "filters" else f"{block}.{int(parts[3]) + 1} op"


def _smooth(values: list[float], keep: float = 0.9) -> list[float]:
    """Returns the exponential moving average, which makes the trend visible."""
    smoothed: list[float] = []
    for value in values:
        smoothed.append(keep * smoothed[-1] + (1 - keep) * value if smoothed else value)
    return smoothed
