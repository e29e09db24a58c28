"""The networks worth keeping for one device: the best by reward, and the Pareto set."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network as the search saw it, once.

    Attributes:
      step: when.
      decisions: the network.
      quality: on held-out images, with shared weights.
      cost: predicted, in the unit of the device's latency model.
      reward: of both.
    """

    step: int
    decisions: tuple[int, ...]
    quality: float
    cost: float
    reward: float


class Archive:
    """Best and Pareto set (quality up, cost down) of the networks seen.

    Args:
      size: how many of the best are kept.
    """

    def __init__(self, size: int = 8):
        self.size = size
        self.best: list[Candidate] = []
        self.front: list[Candidate] = []

    def add(self, candidate: Candidate) -> None:
        """Keeps the network where it is worth it; of equals the earlier one stays."""
        others = [c for c in self.best if c.decisions != candidate.decisions or c.reward >= candidate.reward]
        if candidate.decisions not in {c.decisions for c in others}:
            self.best = sorted([*others, candidate], key=lambda c: -c.reward)[: self.size]
        if any(c.quality >= candidate.quality and c.cost <= candidate.cost for c in self.front):
            return
        kept = [c for c in self.front if c.quality > candidate.quality or c.cost < candidate.cost]
        self.front = sorted([*kept, candidate], key=lambda c: c.cost)

    def spread(self, count: int) -> list[tuple[int, ...]]:
        """Networks of the Pareto set and the best, so many at most, the best first."""
        ranked = [*self.best, *sorted(self.front, key=lambda c: -c.quality)]
        return list(dict.fromkeys(c.decisions for c in ranked))[:count]

    def replace(self, candidates: Iterable[Candidate]) -> None:
        """Forgets what was seen and keeps these, measured anew."""
        self.best, self.front = [], []
        for candidate in candidates:
            self.add(candidate)

    def state(self) -> dict[str, Any]:
        """A JSON-ready copy."""
        return {
            "best": [dataclasses.asdict(c) for c in self.best],
            "front": [dataclasses.asdict(c) for c in self.front],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a state again."""
        self.best, self.front = ([_candidate(row) for row in state[name]] for name in ("best", "front"))


def _candidate(row: dict[str, Any]) -> Candidate:
    return Candidate(**row | {"decisions": tuple(np.array(row["decisions"]).tolist())})
