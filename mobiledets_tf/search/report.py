"""What a search found and how it got there, as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mobiledets_tf.architecture import describe
from mobiledets_tf.search.agent import Agent
from mobiledets_tf.search.archive import Archive, Candidate
from mobiledets_tf.search.settings import Objective, Search
from mobiledets_tf.search_space import decode

SCHEMA_VERSION = 2
# Rows of the history that a report holds; all of them are in history.jsonl.
_ROWS = 1000
# A quality below this tells next to nothing of a network: in searches of 300 steps that learnt little AP50
# was 0.005 on average, moved by 0.004 from batch to batch and did not rise with the network's multiply-adds.
BLIND_BELOW = 0.01


@dataclasses.dataclass(frozen=True)
class Finalist:
    """A network evaluated once more at the end, on all held-out images.

    Attributes:
      decisions: the network.
      quality: with shared weights.
      source: `policy` (what the search stands for), `argmax` of it, or `best` of the networks seen.
    """

    decisions: tuple[int, ...]
    quality: float
    source: str


def summarise(
    search: Search,
    agents: Sequence[Agent],
    archives: dict[str, Archive],
    finalists: dict[str, list[Finalist]],
    found: dict[str, Finalist],
    history: Sequence[dict[str, Any]],
    dropped: int,
) -> dict[str, Any]:
    """A JSON-ready report: settings, and for each device the network, its cost, what came close.

    The entries of the first device that was steered by stand at the top as well.
    """
    policies = {agent.objective.device: agent.controller for agent in agents}
    devices = []
    for objective in search.objectives:
        device = objective.device
        entry = _network(search, objective, found[device])
        entry["finalists"] = [_network(search, objective, f) for f in finalists[device]]
        entry["pareto"] = [_seen(c) for c in archives[device].front]
        entry["best_seen"] = [_seen(c) for c in archives[device].best]
        if device in policies:
            entry["policy"] = {
                path: [round(float(p), 6) for p in row]
                for (path, _), row in zip(
                    search.latency.space.decisions, policies[device].probabilities(), strict=True
                )
            }
        devices.append(entry)
    main = next(entry for entry in devices if entry["device"] == search.steering[0].device)
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": search.settings(),
        **{name: main[name] for name in ("decisions", "cost", "cost_unit", "cost_kind", "target")},
        **{name: main[name] for name in ("params", "madds")},
        "devices": devices,
        "final_quality": final_quality(history),
        "dropped_steps": dropped,
        "history": list(history[:: -(-len(history) // _ROWS) or 1]),
    }


def final_quality(history: Sequence[dict[str, Any]]) -> float | None:
    """Mean quality of the last quarter of the paid steps; None where no reward was paid."""
    qualities = [row["quality"] for row in history if "quality" in row]
    last = qualities[3 * len(qualities) // 4 :]
    return sum(last) / len(last) if last else None


def _network(search: Search, objective: Objective, finalist: Finalist) -> dict[str, Any]:
    latency = objective.latency
    network = decode(latency.space, finalist.decisions)
    figures = describe(network, latency.num_classes, latency.image_size)
    cost = latency.predict_one(finalist.decisions)
    return {
        "device": objective.device,
        "source": finalist.source,
        "decisions": list(finalist.decisions),
        "quality": finalist.quality,
        "cost": cost,
        "cost_unit": latency.unit,
        "cost_kind": latency.kind,
        "target": objective.target,
        "cost_over_target": cost / objective.target,
        "reward": objective.worth(finalist.quality, cost),
        "params": figures["params"],
        "madds": figures["madds"],
    }


def _seen(candidate: Candidate) -> dict[str, Any]:
    return dataclasses.asdict(candidate) | {"decisions": list(candidate.decisions)}
