"""Report of a rank comparison: Kendall's tau, its interval and its controls, as text and as a figure."""

import dataclasses
import itertools
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import atomic_path
from mobiledets_tf.search.reliability import ENOUGH, kendall_tau, split_half
from mobiledets_tf.search_space import SearchSpace, decode

SCHEMA_VERSION = 2
# Controls, which show how well the size of a network alone predicts its quality: name in
# `architecture.describe` -> name in sentences.
CONTROLS = {"params": "the number of parameters", "madds": "the number of multiply-adds"}
_RESAMPLES = 2000
_LABELS = {"loss": "minus the loss"}


def sizes(settings: dict[str, Any], space: SearchSpace, networks: np.ndarray) -> dict[str, list[int]]:
    """Returns the controls by name: parameters and multiply-adds of each network.

    Args:
      settings, space: settings and search space returned by `rank.read_search`.
      networks: int32 [networks, decisions].
    """
    image_size = tuple(settings["image_size"])
    figures = [
        architectures.describe(decode(space, network), settings["num_classes"], image_size)
        for network in networks
    ]
    return {name: [one[name] for one in figures] for name in CONTROLS}


def report(
    networks: np.ndarray,
    shared: np.ndarray,
    alone: np.ndarray,
    controls: Mapping[str, Sequence[float]],
    about: dict[str, Any],
) -> dict[str, Any]:
    """Computes the rank correlation between shared-weights and stand-alone quality, with its controls.

    Args:
      networks: int [networks, decisions].
      shared: quality with shared weights, float64 [networks, batches]; a network whose quality is minus
        infinity ranks last.
      alone: quality after stand-alone training, float64 [networks, seeds].
      controls: name of a control -> its value for each network; see `sizes`.
      about: further entries of the report: `metric`, `alone_metric`, `draw`, ...

    Returns:
      The content of rank_report.json. An entry is None where it is undefined because all values on one
      side are equal.

    Raises:
      InputError: there are fewer than three networks.
    """
    from scipy import stats

    if len(networks) < 3:
        raise InputError(f"{len(networks)} networks; a rank correlation needs at least 3")
    ours, theirs = shared.mean(axis=1), alone.mean(axis=1)
    main, reliable = _correlation(ours, theirs), split_half(shared)
    defined = main["kendall_tau"] is not None
    return {
        "schema_version": SCHEMA_VERSION,
        **about,
        **main,
        "kendall_p": float(stats.kendalltau(ours, theirs).pvalue) if defined else None,
        "spearman_rho": float(stats.spearmanr(ours, theirs).statistic) if defined else None,
        "controls": {name: _correlation(np.array(values), theirs) for name, values in controls.items()},
        "shared_reliability": dataclasses.asdict(reliable) | {"blind": reliable.blind},
        "alone_reliability": {"seeds": alone.shape[1], "tau": seeds_tau(alone)},
        "networks": [
            {
                "decisions": [int(option) for option in network],
                "shared": _finite(ours[number]),
                "alone": float(theirs[number]),
                "alone_by_seed": alone[number].tolist(),
                **{name: values[number] for name, values in controls.items()},
            }
            for number, network in enumerate(networks)
        ],
    }


def seeds_tau(alone: np.ndarray) -> float | None:
    """Returns the mean Kendall's tau over pairs of seeds; None with one seed or if no pair has a tau.

    Args:
      alone: quality after stand-alone training, float64 [networks, seeds].
    """
    taus = [kendall_tau(first, second) for first, second in itertools.combinations(alone.T, 2)]
    defined = [tau for tau in taus if tau is not None]
    return float(np.mean(defined)) if defined else None


def _correlation(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Returns Kendall's tau of two qualities, float64 [networks] each, with its `tau_interval`."""
    return {
        "kendall_tau": kendall_tau(first, second),
        "kendall_tau_interval": tau_interval(first, second),
    }


def tau_interval(first: np.ndarray, second: np.ndarray) -> list[float] | None:
    """Returns the bootstrap 95 % interval of Kendall's tau over networks; the resamples have a fixed seed.

    Args:
      first, second: the two values of each network, float64 [networks].

    Returns:
      [low, high]; None if tau is defined in no resample.
    """
    rng = np.random.default_rng(0)
    resamples = rng.integers(len(first), size=(_RESAMPLES, len(first)))
    taus = [kendall_tau(first[rows], second[rows]) for rows in resamples]
    defined = [tau for tau in taus if tau is not None]
    return np.percentile(defined, (2.5, 97.5)).tolist() if defined else None


def _finite(value: float) -> float | None:
    """Returns None for a non-finite value, which JSON cannot represent."""
    return float(value) if np.isfinite(value) else None


def sentences(summary: dict[str, Any]) -> list[str]:
    """Returns the sentences of a report: tau, both reliabilities, the controls and any warning."""
    shared, alone = summary["shared_reliability"]["tau"], summary["alone_reliability"]["tau"]
    count, seeds = len(summary["networks"]), summary["alone_reliability"]["seeds"]
    controls = " and ".join(
        f"{_tau(summary['controls'][name])} for {words}"
        for name, words in CONTROLS.items()
        if name in summary["controls"]
    )
    between = f"between {seeds} seeds" if seeds > 1 else "with 1 seed"
    found = [
        f"Kendall's tau between the rankings by shared weights and by stand-alone training, over {count} "
        f"networks: {_tau(summary)}.",
        f"Reliability: tau {_shown(shared)} between two halves of the images for shared weights, "
        f"tau {_shown(alone)} {between} for stand-alone training.",
    ]
    if controls:
        found.append(f"Controls: tau of stand-alone training with network size is {controls}.")
    noisy = [
        name
        for name, tau in (("shared weights", shared), ("stand-alone training", alone))
        if tau is not None and not tau >= ENOUGH
    ]
    if noisy:
        found.append(
            f"The reliability of {' and '.join(noisy)} is below {ENOUGH}, so noise alone may explain a low "
            "tau: use more images, steps or seeds."
        )
    return found


def _tau(entry: dict[str, Any]) -> str:
    tau, interval = entry["kendall_tau"], entry["kendall_tau_interval"]
    if tau is None or interval is None:
        return _shown(tau)
    return f"{tau:.2f} (95 % interval {interval[0]:.2f} to {interval[1]:.2f})"


def _shown(tau: float | None) -> str:
    return "not defined" if tau is None else f"{tau:.2f}"


def draw(path: str | os.PathLike, summary: dict[str, Any]) -> None:
    """Plots stand-alone quality against shared-weights quality as a PNG, written atomically.

    A vertical line joins the best and the worst seed of a network. Networks whose quality with shared
    weights is not finite are left out.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.4, 6), layout="constrained")
    rows = [row for row in summary["networks"] if row["shared"] is not None]
    shared = [row["shared"] for row in rows]
    seeds = [row["alone_by_seed"] for row in rows]
    axis.vlines(shared, [min(one) for one in seeds], [max(one) for one in seeds], color="0.6", linewidth=1)
    axis.plot(shared, [row["alone"] for row in rows], "ko", markersize=4)
    metric, alone = (_LABELS.get(name, name) for name in (summary["metric"], summary["alone_metric"]))
    axis.set(
        xlabel=f"{metric} with shared weights",
        ylabel=f"{alone} after stand-alone training (line: worst to best seed)",
    )
    axis.ticklabel_format(useOffset=False)
    axis.set_title("\n".join(textwrap.fill(one, 80) for one in sentences(summary)), fontsize=9, loc="left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    pyplot.close(figure)
