"""Networks that are known to be good, fitted into the latency band of a search.

They are the published networks and the user's own, which one would use without a search. A search
starts from them and has to beat them, so they are scaled to its target cost.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf.architecture import Architecture, LayerSpec
from mobiledets_tf.errors import InputError
from mobiledets_tf.search.band import Band
from mobiledets_tf.search_space import SKIP, LayerOption, SearchSpace, encode

# Width multipliers that are tried; each scaled width is then rounded to the nearest one of the space.
_SCALES = np.geomspace(0.2, 4.0, 61)
# Scales at which the cost of the network differs from the target by more than this factor are skipped.
_REACH = 2.0
# Penalties for differences from the known network: the log-ratio of a width (a step of 25 % costs 1.1), a
# layer that is removed or added, a different kind of layer, and a different size of the same kind.
_WIDTH, _DEPTH, _KIND, _SIZE = 5.0, 8.0, 4.0, 1.0


@dataclasses.dataclass(frozen=True)
class Known:
    """A known network, represented by the nearest network of a search space.

    Attributes:
      name: name of the network, or of the file it comes from.
      decisions: the nearest network of the space inside the band.
      scale: multiplier of the known network's widths.
      changes: number of decisions that differ from those of the scaled network rounded to the space.
    """

    name: str
    decisions: tuple[int, ...]
    scale: float
    changes: int


def candidates(paths: Sequence[str]) -> tuple[Architecture, ...]:
    """Returns the networks of architecture files, named after their files."""
    return tuple(dataclasses.replace(architectures.load(path), name=Path(path).stem) for path in paths)


def known_networks(
    band: Band, candidates: Sequence[Architecture] = (), published: bool = True
) -> list[Known]:
    """Fits known networks into a latency band, each with as few changes as possible, without duplicates.

    Args:
      band: latency band of the search.
      candidates: the user's own networks.
      published: whether to include the published networks.
    """
    found: dict[tuple[int, ...], Known] = {}
    names = architectures.PUBLISHED if published else ()
    for network in (*candidates, *(architectures.load(name) for name in names)):
        fitted = fit(band, network)
        if fitted is not None:
            found.setdefault(fitted.decisions, fitted)
    return list(found.values())


def fit(band: Band, network: Architecture) -> Known | None:
    """Returns the network in the band that is nearest to a network scaled in width; None if there is none.

    A network of the space that lies inside the band is returned unchanged. Otherwise the scale with the
    smallest changes is chosen; ties go to the space's own scale, then to the cost nearest to the target.
    An activation or squeeze-excite that the space does not have is dropped.
    """
    space, seen, fitted = band.latency.space, set(), []
    with contextlib.suppress(InputError):
        decisions = encode(space, network)
        if band.contains(decisions[None])[0]:
            return Known(network.name, tuple(decisions.tolist()), 1.0, 0)
    for scale in (space.depth_multiplier, *_SCALES):
        scores = _scores(space, network, scale)
        scaled = np.array([row.argmax() for row in scores], np.int32)
        distance = abs(np.log(band.latency.predict(scaled[None])[0] / band.target))
        if distance > np.log(_REACH) or tuple(scaled) in seen:
            continue
        seen.add(tuple(scaled))
        likeliest = band.likeliest(scores)
        if likeliest is not None:
            pairs = zip(scores, likeliest, strict=True)
            losses = [float(row.max() - row[option]) for row, option in pairs]
            changes = sum(loss > 0 for loss in losses)
            known = Known(network.name, tuple(likeliest.tolist()), float(scale), changes)
            fitted.append(((sum(losses), scale != space.depth_multiplier, distance), known))
    return min(fitted, key=lambda pair: pair[0])[1] if fitted else None


def nearest(space: SearchSpace, network: Architecture) -> tuple[int, ...]:
    """Returns the decisions of the space's network that is nearest to a given one, whatever its cost."""
    return tuple(int(row.argmax()) for row in _scores(space, network, 1.0))


def _scores(space: SearchSpace, network: Architecture, scale: float) -> list[np.ndarray]:
    """Returns how similar each option is to the scaled network; 0 is equal, differences are negative."""
    found = [_widths(space.stem_filters.choices, network.stem.filters * scale)]
    for block, layers in zip(space.blocks, network.blocks, strict=True):
        found.append(_widths(block.filters.choices, layers[0].filters * scale))
        for place, layer in enumerate(block.layers):
            given = layers[place] if place < len(layers) else None
            found.append(np.array([_likeness(option, given) for option in layer.op.choices]))
    return found


def _widths(choices: Sequence[int], wanted: float) -> np.ndarray:
    return -_WIDTH * np.abs(np.log(np.array(choices) / wanted))


def _likeness(option: LayerOption, layer: LayerSpec | None) -> float:
    if layer is None or option == SKIP:
        return 0.0 if (layer is None) == (option == SKIP) else -_DEPTH
    given = LayerOption.of(layer)
    fields = ("kernel_size", "expansion", "in_ratio", "out_ratio")
    differing = sum(getattr(option, name) != getattr(given, name) for name in fields)
    if option.op == given.op:
        return -_SIZE * differing
    # Kinds of layer have different fields; only the kernel size can be compared.
    return -_KIND - _SIZE * (option.kernel_size != given.kernel_size)
