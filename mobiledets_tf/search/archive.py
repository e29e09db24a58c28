"""Archive of the best networks by reward and of the Pareto set, for one device."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network with the quality that the search measured at one step.

    Attributes:
      step: number of the search step.
      decisions: decision vector of the network.
      quality: quality on held-out images with shared weights.
      cost: predicted cost, in the unit of the device's latency model.
      reward: reward computed from quality and cost.
    """

    step: int
    decisions: tuple[int, ...]
    quality: float
    cost: float
    reward: float


class Archive:
    """The best networks and the Pareto set (high quality, low cost) of all networks added.

    Args:
      size: number of best networks to keep.
    """

    def __init__(self, size: int = 8):
        self.size = size
        self.best: list[Candidate] = []
        self.front: list[Candidate] = []

    def add(self, candidate: Candidate) -> None:
        """Adds a network to the best or the Pareto set if it qualifies; on ties the earlier one stays."""
        others = [c for c in self.best if c.decisions != candidate.decisions or c.reward >= candidate.reward]
        if candidate.decisions not in {c.decisions for c in others}:
            self.best = sorted([*others, candidate], key=lambda c: -c.reward)[: self.size]
        if any(c.quality >= candidate.quality and c.cost <= candidate.cost for c in self.front):
            return
        kept = [c for c in self.front if c.quality > candidate.quality or c.cost < candidate.cost]
        self.front = sorted([*kept, candidate], key=lambda c: c.cost)

    def spread(self, count: int) -> list[tuple[int, ...]]:
        """Returns at most `count` networks: the best ones first, then the Pareto set by falling quality."""
        ranked = [*self.best, *sorted(self.front, key=lambda c: -c.quality)]
        return list(dict.fromkeys(c.decisions for c in ranked))[:count]

    def replace(self, candidates: Iterable[Candidate]) -> None:
        """Clears the archive and adds the given candidates."""
        self.best, self.front = [], []
        for candidate in candidates:
            self.add(candidate)

    def state(self) -> dict[str, Any]:
        """Returns a JSON-ready copy of the archive."""
        return {
            "best": [dataclasses.asdict(c) for c in self.best],
            "front": [dataclasses.asdict(c) for c in self.front],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state returned by `state`."""
        self.best, self.front = ([_candidate(row) for row in state[name]] for name in ("best", "front"))


def _candidate(row: dict[str, Any]) -> Candidate:
    return Candidate(**row | {"decisions": tuple(np.array(row["decisions"]).tolist())})
