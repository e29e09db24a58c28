"""Shows predictions of latency models as tables and plots."""

import os
from collections.abc import Sequence

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf.latency import fit_report
from mobiledets_tf.latency.model import LatencyModel


def blocks(model: LatencyModel, decisions: np.ndarray) -> dict[str, float]:
    """Returns the predicted cost of each block of a network, in the model's unit.

    The blocks are those of `LatencyModel.parts` with the layers of a block added up: the stem, `block1`
    to `block7`, the layers that read C4 and C5, and the constant cost that all networks have in common.
    """
    costs: dict[str, float] = {}
    for part, cost in model.parts(decisions).items():
        block = part.split("_layer")[0]
        costs[block] = costs.get(block, 0.0) + cost
    return costs


def side_by_side(model: LatencyModel, networks: dict[str, np.ndarray]) -> str:
    """Returns a table of the predicted cost per block with one column per network and their totals."""
    columns = {name: blocks(model, decisions) for name, decisions in networks.items()}
    rows = list(next(iter(columns.values())))
    lines = [f"{model.title}, predicted cost in {model.unit}"]
    header = ["block", *columns]
    table = [[row, *(_number(column[row]) for column in columns.values())] for row in rows]
    table.append(["total", *(_number(sum(column.values())) for column in columns.values())])
    return "\n".join(lines + _aligned([header, *table]))


def published(models: Sequence[LatencyModel]) -> str:
    """Returns a table of the cost that each model predicts for each published network.

    A cell is `-` if the model's search space does not contain the network. Activation and squeeze-excite
    of the networks are replaced by those of the space.
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
    """Writes a PNG with the predicted cost per block of networks as bars."""
    columns = {name: blocks(model, decisions) for name, decisions in networks.items()}
    fit_report.draw_parts(f"{model.title}, predicted cost", model.unit, columns, path)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4f}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
