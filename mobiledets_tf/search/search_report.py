"""Report of a search: its result and history as JSON, and a summary of a few lines."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mobiledets_tf.architecture import describe
from mobiledets_tf.latency import held_out
from mobiledets_tf.search.agent import Agent
from mobiledets_tf.search.archive import Archive, Candidate
from mobiledets_tf.search.finalists import Finalist, certainty
from mobiledets_tf.search.known import Known
from mobiledets_tf.search.proposals import even
from mobiledets_tf.search.reliability import ENOUGH, Reliability
from mobiledets_tf.search.settings import REPORT_VERSION, Objective, Search
from mobiledets_tf.search_space import decode

# Maximum number of history rows in a report; history.jsonl contains all of them.
_ROWS = 1000


def summarise(
    search: Search,
    agents: Sequence[Agent],
    known: dict[str, list[Known]],
    archives: dict[str, Archive],
    finalists: dict[str, list[Finalist]],
    populations: dict[str, list[Finalist]],
    reliability: Reliability,
    history: Sequence[dict[str, Any]],
    dropped: int,
) -> dict[str, Any]:
    """Returns a JSON-ready report: the settings and, for each device, its network, cost and runners-up.

    The main entries of the first steering device are repeated at the top level.

    Args:
      search: settings of the search.
      agents: agents of the steering devices.
      known: known networks of each device.
      archives: archive of each device.
      finalists: finalists of each device; the selected one comes first.
      populations: networks from which the finalists of each device were chosen.
      reliability: reliability of the quality measured with shared weights.
      history: one row per search step.
      dropped: number of steps that were dropped and changed nothing.
    """
    policies = {agent.objective.device: agent for agent in agents}
    devices = []
    for objective in search.objectives:
        device = objective.device
        entry = _network(search, objective, finalists[device][0])
        entry["finalists"] = [_network(search, objective, f) for f in finalists[device]]
        entry["against_known"] = against_known(finalists[device])
        entry["certainty"] = _certainty(finalists[device])
        entry["pareto"] = [_seen(c) for c in archives[device].front]
        entry["best_seen"] = [_seen(c) for c in archives[device].best]
        if objective.in_band:
            entry["share_of_space_in_band"] = objective.networks.share(even(search.latency.space))
        if device in policies:
            agent = policies[device]
            entry["known"] = [
                dataclasses.asdict(one) | {"decisions": list(one.decisions), "centre": one in agent.centres}
                for one in known[device]
            ]
            entry["policy"] = {
                path: [round(float(p), 6) for p in row]
                for (path, _), row in zip(search.latency.space.decisions, agent.probabilities(), strict=True)
            }
        errors = [abs(f["error_pct"]) for f in entry["finalists"] if f.get("error_pct") is not None]
        if errors:
            entry["finalists_mean_abs_pct_error"] = float(np.mean(errors))
        entry["population"] = [_costs(objective, one) for one in populations[device]]
        entry["model_error"] = model_error(entry["population"])
        devices.append(entry)
    main = next(entry for entry in devices if entry["device"] == search.steering[0].device)
    summary = {
        "schema_version": REPORT_VERSION,
        "settings": search.settings(),
        **{name: main[name] for name in ("decisions", "cost", "cost_unit", "cost_kind", "target")},
        **{name: main[name] for name in ("params", "madds")},
        "devices": devices,
        "reliability": dataclasses.asdict(reliability) | {"blind": reliability.blind},
        "dropped_steps": dropped,
        "history": list(history[:: -(-len(history) // _ROWS) or 1]),
    }
    return summary | {"words": lines(summary)}


def model_error(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns how far a latency model was off on the measured networks of a population.

    Args:
      rows: entries of `population` in a report.

    Returns:
      The entries of `held_out.Figures` and `mean_pct_error`, the mean signed error (positive: the model
      predicts too much); None if fewer than two networks were measured.
    """
    pairs = [(row["cost"], row["measured"]) for row in rows if row.get("measured") is not None]
    if len(pairs) < 2:
        return None
    predicted, measured = np.array(pairs).T
    bias = float(100 * np.mean(predicted / measured - 1))
    return held_out.figures(predicted, measured).to_dict() | {"mean_pct_error": round(bias, 6)}


def against_known(finalists: Sequence[Finalist]) -> dict[str, Any] | None:
    """Compares the selected network with the best known one that was trained for as many steps.

    Returns:
      A JSON-ready comparison; None if there is no such known network.
    """
    found = finalists[0]
    known = [f for f in finalists if f.is_known and f.steps == found.steps]
    if not known:
        return None
    best = max(known, key=lambda f: (_score(f), f is found))
    return {
        "source": best.source,
        "is_found": best is found,
        "found": _finite(_score(found)),
        "known": _finite(_score(best)),
        "certainty": None if best is found else certainty(found, best),
    }


def _score(finalist: Finalist) -> float:
    """Returns the stand-alone score of a network trained alone, otherwise its shared-weights quality."""
    return finalist.score if finalist.judged else finalist.quality


def _certainty(finalists: Sequence[Finalist]) -> float | None:
    """Returns the `certainty` that the first is better than the best other one trained for as many steps."""
    found, *others = [f for f in finalists if f.steps == finalists[0].steps]
    return certainty(found, others[0]) if others and found.judged else None


def lines(summary: dict[str, Any]) -> list[str]:
    """Returns the summary lines printed at the end of a search."""
    metric, reliability = summary["settings"]["metric"], summary["reliability"]
    found = []
    if reliability["blind"]:
        tau = reliability["tau"]
        shown = "is undefined" if tau is None else f"is {tau:.2f}"
        found.append(
            f"warning: the {metric} with shared weights does not rank networks reliably (its split-half tau "
            f"{shown}; at least {ENOUGH} is needed): increase --steps or --quality_images"
        )
    for entry in summary["devices"]:
        share = entry.get("share_of_space_in_band")
        if share is not None:
            found.append(f"{entry['device']}: a fraction of {share:.2g} of the space is in the latency band")
        against = entry["against_known"]
        if against is None:
            continue
        alone = entry["trained_alone"]
        how = f"each trained alone for {alone} steps" if alone else "with shared weights"
        sign = -1 if metric == "loss" else 1
        if against["is_found"]:
            found.append(f"{entry['device']}: the {against['source']} was the best of the finalists, {how}")
            continue
        ours, theirs = (
            float("nan") if against[name] is None else sign * against[name] for name in ("found", "known")
        )
        found.append(
            f"{entry['device']}: {metric} {ours:.4f} for the network found, {theirs:.4f} for the "
            f"{against['source']} at equal cost, {how}{_sure(against['certainty'])}"
        )
    return found


def _sure(share: float | None) -> str:
    if share is None:
        return ""
    return f"; the network found is better in {share:.0%} of 2,000 bootstrap samples of the images"


def _network(search: Search, objective: Objective, finalist: Finalist) -> dict[str, Any]:
    latency = objective.latency
    network = decode(latency.space, finalist.decisions)
    figures = describe(network, latency.num_classes, latency.image_size)
    costs = _costs(objective, finalist)
    cost = costs["cost"]
    return {
        "device": objective.device,
        **costs,
        "quality": _finite(finalist.quality),
        "trained_alone": finalist.steps,
        "score_alone": _finite(finalist.score) if finalist.judged else None,
        "cost_unit": latency.unit,
        "cost_kind": latency.kind,
        "target": objective.target,
        "cost_over_target": cost / objective.target,
        "in_band": abs((finalist.measured or cost) / objective.target - 1) <= objective.band,
        "reward": objective.worth(finalist.quality, cost) if np.isfinite(finalist.quality) else None,
        "params": figures["params"],
        "madds": figures["madds"],
    }


def _costs(objective: Objective, finalist: Finalist) -> dict[str, Any]:
    """Returns a network with its predicted cost and, if it was measured, its measured cost."""
    measured, cost = finalist.measured, objective.latency.predict_one(finalist.decisions)
    entry = {"source": finalist.source, "decisions": list(finalist.decisions), "cost": cost}
    if measured is not None or finalist.failed is not None:
        entry |= {"measured": measured, "failed": finalist.failed}
    if measured is not None:
        entry["error_pct"] = 100 * (cost / measured - 1)
    return entry


def _finite(value: float) -> float | None:
    """Returns None for a non-finite value, which JSON cannot represent."""
    return float(value) if np.isfinite(value) else None


def _seen(candidate: Candidate) -> dict[str, Any]:
    return dataclasses.asdict(candidate) | {"decisions": list(candidate.decisions)}
