"""What a search found and how it got there: JSON and a picture."""

import os
from typing import Any

from mobiledets_tf.architecture import Architecture, describe
from mobiledets_tf.files import atomic_path

SCHEMA_VERSION = 1


def summarise(search, found: Architecture, controller, history: list[dict[str, float]]) -> dict[str, Any]:
    """A JSON-ready report: settings, the network, its cost, the policy, the history."""
    latency = search.latency
    figures = describe(found, latency.num_classes, latency.image_size)
    probabilities = controller.probabilities()
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": search.settings(),
        "decisions": list(found.origin.decisions),
        "cost": latency.predict_one(found.origin.decisions),
        "cost_unit": latency.unit,
        "cost_kind": latency.kind,
        "target": search.target,
        "params": figures["params"],
        "madds": figures["madds"],
        "policy": {
            path: [round(float(p), 6) for p in row]
            for (path, _), row in zip(latency.space.decisions, probabilities, strict=True)
        },
        "history": history,
    }


def draw(path: str | os.PathLike, search, history: list[dict[str, float]]) -> None:
    """Loss, quality, cost over target and entropy over the steps; a PNG, written atomically."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [row["step"] for row in history]
    learned = [row for row in history if row["step"] > search.schedule.rl_delay * search.schedule.steps]
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), layout="constrained")
    panels = (
        ("training loss", steps, [row["loss"] for row in history]),
        (
            f"{search.metric} on held-out images",
            [r["step"] for r in learned],
            [r["quality"] for r in learned],
        ),
        (f"cost / target ({search.latency.device})", steps, [row["cost"] / search.target for row in history]),
        ("policy entropy / uniform", steps, [row["entropy"] for row in history]),
    )
    for axis, (title, x, y) in zip(axes.flat, panels, strict=True):
        axis.plot(x, y, ".", color="0.6", markersize=3)
        axis.plot(x, _smooth(y), color="black")
        axis.set(title=title, xlabel="step")
    axes[1, 0].axhline(1.0, linestyle="--", color="0.3")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    pyplot.close(figure)


def _smooth(values: list[float], keep: float = 0.9) -> list[float]:
    """Moving average for the eye."""
    smoothed: list[float] = []
    for value in values:
        smoothed.append(keep * smoothed[-1] + (1 - keep) * value if smoothed else value)
    return smoothed
