"""Channel groups of a detector, the importance of channels, and the choice of channels to keep.

Channels that are added to each other, or that are the input and output of a depthwise convolution,
form one group: a channel that is removed from a group is removed in all layers that read or write it.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mobiledets_tf.architecture.specs import ENDPOINTS
from mobiledets_tf.weights.imported_weights import Convolution, Target

IMAGE = "image"


@dataclasses.dataclass(frozen=True)
class Place:
    """A convolution and the channel groups that it reads and writes.

    Attributes:
      conv: the convolution.
      reads, writes: names of the groups; equal for a depthwise convolution.
      ends_layer: whether the convolution is the last one of its layer.
    """

    conv: Convolution
    reads: str
    writes: str
    ends_layer: bool


def places(target: Target) -> dict[str, Place]:
    """Returns every convolution of a detector by its name, in order.

    A residual layer writes the group that it reads. Every other layer writes a separate group with the
    name of the layer; the last convolution of a predictor writes boxes or classes.
    """
    scaled = target.architecture.scaled(target.depth_multiplier)
    residual = {name: layer.residual for name, layer in scaled.named_layers()}
    layers: dict[str, list[Convolution]] = {}
    for conv in target.convolutions():
        layers.setdefault(conv.layer, []).append(conv)
    ends = {f"block{ENDPOINTS[name] + 1}_layer{len(scaled.blocks[ENDPOINTS[name]])}" for name in ("C4", "C5")}
    found: dict[str, Place] = {}
    maps: list[str] = []
    current = IMAGE
    for layer, convs in layers.items():
        if layer.startswith("predictor"):
            number = int(layer.removeprefix("predictor").partition("_")[0])
            found |= _chain(layer, convs, maps[number], layer)
            continue
        writes = current if residual.get(layer) else layer
        found |= _chain(layer, convs, current, writes)
        current = writes
        if layer in ends or layer.startswith("extra"):
            maps.append(current)
    return found


def _chain(layer: str, convs: list[Convolution], reads: str, writes: str) -> dict[str, Place]:
    found, group = {}, reads
    for conv in convs:
        if "_se_" in conv.name:  # It reads and scales the group; its hidden layer is another group.
            inside = f"{layer}/se"
            pair = (group, inside) if conv.op.name == "reduce" else (inside, group)
            found[conv.name] = Place(conv, *pair, ends_layer=False)
            continue
        last = conv is convs[-1]
        after = group if conv.op.depthwise else writes if last else f"{layer}/{conv.op.name}"
        found[conv.name] = Place(conv, group, after, last)
        group = after
    return found


@dataclasses.dataclass
class Folded:
    """A convolution with its batch normalisation folded in: y = kernel * x + offset.

    Attributes:
      kernel: float64 [k, k, in, out], or [k, k, channels, 1].
      offset: float64 [out].
      mean, std: mean and standard deviation of y according to the batch normalisation; float64 [out].
    """

    kernel: np.ndarray
    offset: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, conv: Convolution, weights: Mapping[str, np.ndarray]) -> "Folded":
        """Folds the batch normalisation of a network's convolution."""
        kernel = np.asarray(weights[conv.kernel], np.float64)
        if not conv.op.batch_norm:
            offset = np.asarray(weights[conv.bias], np.float64)
            return cls(kernel, offset, offset, np.ones_like(offset))
        gamma, beta, mean, variance = (
            np.asarray(weights[conv.norm(part)], np.float64)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        variance = np.maximum(variance, 0.0)
        factor = gamma / np.sqrt(variance + conv.epsilon)
        along = factor[:, None] if conv.op.depthwise else factor
        return cls(kernel * along, beta - factor * mean, beta, np.abs(factor) * np.sqrt(variance))

    def norm(self, epsilon: float) -> dict[str, np.ndarray]:
        """Returns the four weights of the batch normalisation that maps kernel * x to y."""
        variance = self.std**2
        return {
            "gamma": np.sqrt(variance + epsilon),
            "beta": self.mean,
            "moving_mean": self.mean - self.offset,
            "moving_variance": variance,
        }

    def some(self, channels: np.ndarray) -> "Folded":
        """Returns the convolution with only the given output channels."""
        axis = 2 if self.kernel.shape[-1] == 1 and len(self.offset) == self.kernel.shape[2] else 3
        vectors = (self.offset[channels], self.mean[channels], self.std[channels])
        return Folded(np.take(self.kernel, channels, axis), *vectors)


def importance(target: Target, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Computes the importance of each channel: its contribution to the convolutions that read it.

    Args:
      target: the detector.
      weights: weights of the detector by canonical name; those of the class predictors may be missing.

    Returns:
      Group -> float64 [channels]: the root of the summed squares, over all convolutions that read the
      group, of the channel's standard deviation times the norm of the kernel that reads it (with BN
      folded in, so that no rescaling changes the order).
    """
    found: dict[str, np.ndarray] = {}
    energy: dict[str, np.ndarray] = {}  # Variance of the values written to a group.
    layer_energy: dict[tuple[str, str], np.ndarray] = {}  # Variance after a layer's depthwise convolution.
    for place in places(target).values():
        conv = place.conv
        if conv.kernel not in weights:  # A class predictor without weights; no convolution reads its output.
            continue
        folded = Folded.of(conv, weights)
        if conv.op.depthwise:
            layer_energy[conv.layer, place.reads] = folded.std**2
            continue
        if place.reads != IMAGE:
            read = layer_energy.get((conv.layer, place.reads), energy[place.reads])
            share = read * (folded.kernel**2).sum(axis=(0, 1, 3))
            found[place.reads] = found.get(place.reads, 0.0) + share
        # The gate of a squeeze-excite scales its group and adds nothing to it.
        if conv.op.batch_norm or place.writes.endswith("/se"):
            energy[place.writes] = energy.get(place.writes, 0.0) + folded.std**2
    return {group: np.sqrt(value) for group, value in found.items()}


class Choice:
    """Chooses which channels of a trained network's groups are kept in a narrower network.

    Args:
      worth: importance of the channels of each group, as returned by `importance`.
      by_worth: whether kept channels are sorted from most to least important (as in once-for-all, arXiv
        1908.09791), for shared weights whose first channels narrower networks use; otherwise they keep
        their order.
    """

    def __init__(self, worth: Mapping[str, np.ndarray], by_worth: bool = False):
        self._worth, self._by_worth = worth, by_worth

    def __call__(self, group: str, channels: int, places: int) -> np.ndarray:
        """Returns the indices of the channels that are kept; int64 [at most `places`].

        Args:
          group: name of a group of the trained network.
          channels: number of channels of the group.
          places: number of channels wanted; if it exceeds `channels`, all channels are kept.
        """
        if group not in self._worth:  # The image, boxes and classes have a fixed order.
            return np.arange(min(channels, places))
        best = np.argsort(-self._worth[group], kind="stable")[:places]
        return best if self._by_worth else np.sort(best)
