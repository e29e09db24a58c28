"""What latency models say of networks, as tables and pictures."""

import os
from collections.abc import Sequence

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf.latency import report
from mobiledets_tf.latency.model import LatencyModel


def blocks(model: LatencyModel, decisions: np.ndarray) -> dict[str, float]:
    """Cost of each block: stem, block1 to block7, what reads C4 and C5, the same for all."""
    costs: dict[str, float] = {}
    for part, cost in model.parts(decisions).items():
        block = part.split("_layer")[0]
        costs[block] = costs.get(block, 0.0) + cost
    return costs


def side_by_side(model: LatencyModel, networks: dict[str, np.ndarray]) -> str:
    """Cost per block of networks, a column each, with totals."""
    columns = {name: blocks(model, decisions) for name, decisions in networks.items()}
    rows = list(next(iter(columns.values())))
    lines = [f"{model.title}, predicted, {model.unit}"]
    header = ["block", *columns]
    table = [[row, *(_number(column[row]) for column in columns.values())] for row in rows]
    table.append(["total", *(_number(sum(column.values())) for column in columns.values())])
    return "\n".join(lines + _aligned([header, *table]))


def published(models: Sequence[LatencyModel]) -> str:
    """All published networks on all models: predicted, or `-` where the space does not hold one.

    Networks take the activation of the model's space, and lose squeeze-excite where it has none.
    """
    from mobiledets_tf.latency.fit import published_in

    names = list(architectures.PUBLISHED)
    table = [["device", "space", *names, "unit"]]
    for model in models:
        costs = {name: model.predict_one(d) for name, d in published_in(model.space).items()}
        cells = [_number(costs[name]) if name in costs else "-" for name in names]
        table.append([model.title, model.space.name, *cells, model.unit])
    return "\n".join(_aligned(table))


def draw(model: LatencyModel, networks: dict[str, np.ndarray], path: str | os.PathLike) -> None:
    """Cost per block of networks as bars, as a PNG."""
    columns = {name: blocks(model, decisions) for name, decisions in networks.items()}
    report.draw_parts(f"{model.title}, predicted", model.unit, columns, path)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4f}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
