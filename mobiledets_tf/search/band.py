"""Networks whose predicted cost is near a target."""

import numpy as np

from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.search.controller import Controller
from mobiledets_tf.search_space import sample

_TRIALS, _ROUNDS = 2000, 100


def sample_in_band(
    latency: LatencyModel, target: float, band: float, rng: np.random.Generator, networks: int
) -> np.ndarray:
    """Even draws from the space, those outside the band rejected (TuNAS's random baseline).

    Args:
      latency: predicts costs.
      target: centre of the band.
      band: largest distance from it, as a share of it.
      rng: random state.
      networks: how many.

    Returns:
      int32 [networks, decisions].

    Raises:
      InputError: next to no network lies in the band; the costs of those drawn are given.
    """
    found: list[np.ndarray] = []
    low, high = np.inf, 0.0
    for _ in range(_ROUNDS):
        drawn = sample(latency.space, rng, _TRIALS)
        costs = latency.predict(drawn)
        low, high = min(low, costs.min()), max(high, costs.max())
        found.extend(drawn[np.abs(costs / target - 1) <= band])
        if len(found) >= networks:
            return np.stack(found[:networks])
    raise InputError(
        f"{len(found)} of {_TRIALS * _ROUNDS} random networks cost {target:,.6g} {latency.unit} within "
        f"{band:.1%}; random networks cost {low:,.6g} to {high:,.6g}: move the target or widen the band"
    )


def likeliest_in_band(
    controller: Controller, latency: LatencyModel, target: float, band: float, rng: np.random.Generator
) -> np.ndarray | None:
    """The network of the highest probability found within the band; None where none was found.

    Starts from draws of the policy and of flatter ones, then changes one decision at a time as
    long as that makes the network likelier.

    Returns:
      int32 [decisions].
    """
    starts = [controller.best()[None]]
    starts += [controller.sample(rng, _TRIALS, temperature) for temperature in (1.0, 2.0, 4.0, 16.0)]
    best = _likeliest(np.concatenate(starts), controller, latency, target, band)
    if best is None:
        # A policy that is sure of itself only draws networks outside: go there step by step.
        best = _approach(controller, latency, target, band)
    while best is not None:
        better = _likeliest(_neighbours(best, latency), controller, latency, target, band)
        gain = controller.log_probability(np.stack([best, better if better is not None else best]))
        if not gain[1] > gain[0] + 1e-12:
            return best
        best = better
    return None


def _likeliest(networks, controller, latency, target, band) -> np.ndarray | None:
    networks = networks[np.abs(latency.predict(networks) / target - 1) <= band]
    if not len(networks):
        return None
    return networks[controller.log_probability(networks).argmax()]


def _neighbours(decisions: np.ndarray, latency: LatencyModel) -> np.ndarray:
    """All networks that differ in one decision; int32 [neighbours, decisions]."""
    rows = []
    for place, (_, node) in enumerate(latency.space.decisions):
        for option in range(len(node.choices)):
            if option != decisions[place]:
                row = decisions.copy()
                row[place] = option
                rows.append(row)
    return np.stack(rows)


def _approach(controller, latency, target, band) -> np.ndarray | None:
    """From the likeliest network towards the target, each time by the change that loses the least
    probability for the distance it gains."""
    here = controller.best()
    for _ in range(1000):
        distance = abs(latency.predict(here[None])[0] / target - 1)
        if distance <= band:
            return here
        around = _neighbours(here, latency)
        gained = distance - np.abs(latency.predict(around) / target - 1)
        if not (gained > 0).any():
            return None
        around, gained = around[gained > 0], gained[gained > 0]
        before = controller.log_probability(here[None])[0]
        loss = np.maximum(before - controller.log_probability(around), 1e-9)
        here = around[(loss / gained).argmin()]
    return None
