"""Draws the training curve: loss and AP of the evaluated checkpoints."""

import os
from collections.abc import Sequence

from mobiledets_tf.files import atomic_path


def draw(metrics: Sequence[dict[str, float | int]], path: str | os.PathLike) -> None:
    """Writes the curve as a PNG file, atomically.

    Args:
      metrics: step, AP, AP50 and loss of each checkpoint, as computed by `evaluate.evaluate_kept`.
      path: path of the PNG file.
    """
    # The Agg canvas needs no window system and leaves pyplot's global state unchanged.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [row["step"] for row in metrics]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    quality, loss = figure.subplots(1, 2)
    for name, style in (("AP50", "o--"), ("AP", "s-")):
        quality.plot(steps, [row[name] for row in metrics], style, color="black", label=name)
    quality.set(title="evaluation images", xlabel="step", ylim=(0, 1))
    quality.legend()
    loss.plot(steps, [row["loss"] for row in metrics], "o-", color="black")
    loss.set(title="evaluation loss", xlabel="step")
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)
