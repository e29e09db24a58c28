"""Do shared weights rank networks as training them alone does? Kendall's tau over a sample."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobiledets_tf.data import records
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import atomic_path, read_json
from mobiledets_tf.search_space import SearchSpace, sample, stored_space

SCHEMA_VERSION = 1


def read_search(folder: str | os.PathLike) -> tuple[dict[str, Any], SearchSpace]:
    """Settings and space of the search in a folder.

    Raises:
      InputError: there is none, it has not come to a saved state, or it is of another space.
    """
    from mobiledets_tf.search.loop import SETTINGS
    from mobiledets_tf.search.state import STATE

    if not (Path(folder) / STATE).exists():
        raise InputError(f"{str(folder)!r} holds no search with saved weights")
    settings = read_json(Path(folder) / SETTINGS, "search settings")
    try:
        return settings, stored_space(settings["search_space"])
    except InputError as error:
        raise InputError(f"{str(folder)!r}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(folder)!r}: settings are missing or malformed ({error})") from error


def sample_networks(space: SearchSpace, networks: int, seed: int) -> np.ndarray:
    """Even draws from the space; int32 [networks, decisions]."""
    return sample(space, np.random.default_rng(seed), networks)


def shared_quality(
    folder: str | os.PathLike, settings: dict[str, Any], space: SearchSpace, networks: np.ndarray
) -> list[float]:
    """AP or AP50, as the search counted it, of networks with its shared weights.

    Args:
      folder: of the search.
      settings, space: of `read_search`.
      networks: int32 [networks, decisions].

    Returns:
      Of each network on the held-out images.
    """
    from mobiledets_tf.search import data, loop, state

    loop.set_seed(settings["seed"])
    step, model_config = loop.build_step(
        space, tuple(settings["image_size"]), settings["num_classes"], settings["execution"]
    )
    state.restore(folder, state.checkpoint(step.supernet), state.load(folder)["step"])
    files = records.resolve(settings["train_data"], "train")
    stream = data.Stream(
        data.Split(files), records.label_map_path(files), model_config, step.preprocess,
        settings["batch_size"] * settings["rl_batch_multiplier"], True, settings["seed"],
    )  # fmt: skip
    batches = loop.final_batches(stream)
    return [
        step.quality(batches, network, settings["metric"])
        for network in tqdm(networks, desc="shared weights", unit="network")
    ]


def report(rows: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Kendall's tau and Spearman's rho between `shared` and `alone` of the rows, JSON-ready.

    Raises:
      InputError: fewer than three networks.
    """
    from scipy import stats

    if len(rows) < 3:
        raise InputError(f"{len(rows)} networks; a rank correlation needs 3 and more")
    sides = [[row[name] for row in rows] for name in ("shared", "alone")]
    # Not defined where all values of a side are equal.
    tau = rho = p_value = None
    if all(len(set(side)) > 1 for side in sides):
        tau, p_value = (float(value) for value in stats.kendalltau(*sides))
        rho = float(stats.spearmanr(*sides).statistic)
    return {
        "schema_version": SCHEMA_VERSION,
        "metric": metric,
        "kendall_tau": tau,
        "kendall_p": p_value,
        "spearman_rho": rho,
        "networks": list(rows),
    }


def draw(path: str | os.PathLike, summary: dict[str, Any]) -> None:
    """Stand-alone quality over shared-weight quality; a PNG, written atomically."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5, 4.5), layout="constrained")
    rows = summary["networks"]
    axis.plot([row["shared"] for row in rows], [row["alone"] for row in rows], "ko", markersize=4)
    tau = summary["kendall_tau"]
    axis.set(
        xlabel=f"{summary['metric']} with shared weights", ylabel=f"{summary['metric']} trained alone",
        title="Kendall's tau " + ("not defined" if tau is None else f"{tau:.2f}") + f", {len(rows)} networks",
    )  # fmt: skip
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    pyplot.close(figure)
