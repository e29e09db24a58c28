"""Remapping of trained weights to another architecture (as in FNA, arXiv 2001.02525, 2006.12986).

Layers with the same name correspond to each other. If they are of the same kind, the most important
channels are kept, consistently throughout the network (`channels`), and kernels are cropped to their
middle or padded; otherwise the trained layer is converted by decomposition (`layer_conversion`). Parts
without a counterpart in the trained network are added so that they have no effect at first: a residual
layer adds nothing, and the weights that read a new channel are zero.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mobiledets_tf.architecture import LayerSpec
from mobiledets_tf.models.fresh_start import residual_scales
from mobiledets_tf.weights import layer_conversion
from mobiledets_tf.weights.channels import IMAGE, Choice, Folded, Place, importance, places
from mobiledets_tf.weights.imported_weights import BN_WEIGHTS, Account, Convolution, Origin, Target
from mobiledets_tf.weights.moments import through

# sigmoid(3) is 0.95: a fresh squeeze-excite scales by nearly 1.
_OPEN_GATE = 3.0


@dataclasses.dataclass
class Remapped:
    """Result of a remapping.

    Attributes:
      account: weights of the wanted network; those in `account.fresh` keep their initial values.
      linear: (convolution, convolution that reads its output) pairs in which the BN of the first keeps
        linear an activation that the trained network did not have.
    """

    account: Account
    linear: list[tuple[Convolution, Convolution]]


def same_network(one: Target, other: Target) -> bool:
    """Returns whether two detectors differ at most in class count, image size and name."""
    scaled = [t.architecture.scaled(t.depth_multiplier) for t in (one, other)]
    plain = [dataclasses.replace(network, name="", origin=None) for network in scaled]
    return plain[0] == plain[1]


def remap(
    source: Account, target: Target, fresh: Mapping[str, np.ndarray], by_worth: bool = False
) -> Remapped:
    """Remaps a trained network's weights to another architecture.

    Args:
      source: weights of the trained network with BN statistics (`norm.unfold_norm`); those of the class
        predictors' last convolutions may be missing.
      target: the wanted detector.
      fresh: initial weights of the wanted detector by canonical name.
      by_worth: whether channels are sorted by importance; see `channels.Choice`.
    """
    return _Remap(source, target, fresh, by_worth).run()


class _Remap:
    def __init__(self, source: Account, target: Target, fresh: Mapping[str, np.ndarray], by_worth: bool):
        self._source, self._fresh = source, fresh
        self._given = source.weights
        self._theirs, self._ours = places(source.target), places(target)
        self._choose = Choice(importance(source.target, self._given), by_worth)
        self._before, self._after = (
            dict(t.architecture.scaled(t.depth_multiplier).named_layers()) for t in (source.target, target)
        )
        self._activations = source.target.architecture.activation, target.architecture.activation
        self._stats = self._group_moments()
        self.account = Account(source.source, source.kind, target, notes=list(source.notes))
        self._linear: list[tuple[Convolution, Convolution]] = []

    def run(self) -> Remapped:
        by_layer: dict[str, list[Place]] = {}
        for place in self._ours.values():
            by_layer.setdefault(place.conv.layer, []).append(place)
        for layer, mine in by_layer.items():
            self._layer(layer, mine)
        self._account_for_files()
        ours, theirs = self.account.target, self._source.target
        shown = theirs.architecture.name
        if theirs.depth_multiplier != 1:
            shown += f" at depth multiplier {theirs.depth_multiplier:g}"
        self.account.notes.append(f"weights of {shown}, remapped to {ours.architecture.name}")
        if self._activations[0] != self._activations[1]:
            trained, used = self._activations
            self.account.notes.append(f"the weights were trained with {trained} and are used with {used}")
        return Remapped(self.account, self._linear)

    def _layer(self, layer: str, mine: list[Place]) -> None:
        wanted, given = self._after.get(layer), self._before.get(layer)
        if wanted is not None and given is None:
            self._leave_fresh(mine, f"{self._source.target.architecture.name!r} has no {layer}")
            if wanted.residual:
                for name in residual_scales(self.account.target.architecture):
                    if name.startswith(f"{layer}_"):
                        self.account.weights[name] = np.zeros_like(self._fresh[name])
        elif wanted is not None and given is not None and wanted.op != given.op:
            self._convert(layer, wanted, given, mine)
        else:
            for place in mine:
                self._keep(place)

    # --- layers of the same kind --------------------------------------------------------------

    def _keep(self, place: Place) -> None:
        """Copies a convolution, narrowed or widened to its new size."""
        conv, theirs = place.conv, self._theirs.get(place.conv.name)
        if theirs is None:
            self._fresh_gate(conv)
            return
        given = theirs.conv
        if given.kernel not in self._given:
            self._leave_fresh([place], self._source.fresh[given.kernel])
            return
        if given.depends_on_classes and given.op.out_channels != conv.op.out_channels:
            slots = (self._source.target.num_classes, self.account.target.num_classes)
            self._leave_fresh([place], f"it has {slots[0]} classes, but the network has {slots[1]}")
            return
        rows = self._choose(theirs.reads, given.op.in_channels, conv.op.in_channels)
        columns = self._choose(theirs.writes, given.op.out_channels, conv.op.out_channels)
        weights = {conv.kernel: self._given[given.kernel][:, :, rows]}
        if not conv.op.depthwise:
            weights[conv.kernel] = weights[conv.kernel][..., columns]
        for name, source in zip(_vectors(conv), _vectors(given), strict=True):
            weights[name] = self._given[source][columns]
        names = dict(zip(conv.weights, given.weights, strict=True))
        for name, value in weights.items():
            self._put(conv, name, value, (names[name],))

    def _put(
        self,
        conv: Convolution,
        name: str,
        value: np.ndarray,
        sources: tuple[str, ...],
        how: str | None = None,
        error: float | None = None,
    ) -> None:
        """Stores the kept part of a weight; new channels keep initial values, and zero weights read them."""
        fresh = np.asarray(self._fresh[name])
        if value.ndim == 4:
            value = layer_conversion.middle(value, fresh.shape[0])
        placed = np.array(fresh)
        if value.ndim == 4 and not conv.op.depthwise:
            placed[:, :, value.shape[2] :] = 0.0
        placed[tuple(slice(side) for side in value.shape)] = value
        if how is None:
            before = np.shape(self._given[sources[0]])
            exact = before == placed.shape and np.array_equal(placed, self._given[sources[0]])
            wider = any(a > b for a, b in zip(placed.shape, before, strict=True))
            how = "copied" if exact else "widened" if wider else "cut"
        self.account.weights[name] = placed.astype(np.float32)
        self.account.origins[name] = Origin(how, sources, error)

    def _fresh_gate(self, conv: Convolution) -> None:
        """Initialises a squeeze-excite that the trained network does not have as an open gate."""
        why = f"{self._source.target.architecture.name!r} has no squeeze-excite there"
        self.account.fresh |= dict.fromkeys(conv.weights, why)
        if conv.op.name == "expand":
            self.account.weights[conv.kernel] = np.zeros_like(self._fresh[conv.kernel])
            self.account.weights[conv.bias] = np.full_like(self._fresh[conv.bias], _OPEN_GATE)

    def _leave_fresh(self, mine: list[Place], why: str) -> None:
        for place in mine:
            self.account.fresh |= dict.fromkeys(place.conv.weights, why)

    # --- layers of different kinds ------------------------------------------------------------

    def _convert(self, layer: str, wanted: LayerSpec, given: LayerSpec, mine: list[Place]) -> None:
        theirs = [p for p in self._theirs.values() if p.conv.layer == layer and "_se_" not in p.conv.name]
        parts = {p.conv.op.name: Folded.of(p.conv, self._given) for p in theirs}
        form = layer_conversion.fused_form(parts, self._activations[0], given.op)
        convs = {p.conv.op.name: p.conv for p in mine if "_se_" not in p.conv.name}
        first, last = next(iter(convs.values())), next(reversed(convs.values()))
        reads, writes = theirs[0].reads, theirs[-1].writes
        rows = self._choose(reads, theirs[0].conv.op.in_channels, first.op.in_channels)
        columns = self._choose(writes, theirs[-1].conv.op.out_channels, last.op.out_channels)
        mean, std = (values[rows] for values in self._stats[reads])
        size = layer_conversion.Wanted(
            wanted.kernel_size,
            {role: conv.op.out_channels for role, conv in convs.items()},
            self._activations[1],
            mean,
            std,
        )
        made = layer_conversion.MAKERS[wanted.op](form.some(rows, columns), size)
        sources = tuple(p.conv.kernel for p in theirs)
        for role, conv in convs.items():
            part = made.parts[role]
            self._put(conv, conv.kernel, part.kernel, sources, made.how, made.error)
            for name, value in part.norm(conv.epsilon).items():
                self._put(conv, conv.norm(name), value, sources, made.how)
        for place in mine:
            if "_se_" in place.conv.name:
                self._fresh_gate(place.conv)
        self._linear += [(convs[one], convs[other]) for one, other in made.linear]

    def _group_moments(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns (mean, standard deviation) of each group between layers, estimated from the trained BN.

        The outputs that residual layers add are assumed to be independent.
        """
        mean: dict[str, np.ndarray] = {}
        variance: dict[str, np.ndarray] = {}
        for place in self._theirs.values():
            if not place.ends_layer or not place.conv.op.batch_norm:
                continue
            folded = Folded.of(place.conv, self._given)
            activation = place.conv.op.activation
            out, spread, _ = through(activation, folded.mean, folded.std)
            mean[place.writes] = mean.get(place.writes, 0.0) + out
            variance[place.writes] = variance.get(place.writes, 0.0) + spread**2
        return {group: (value, np.sqrt(variance[group])) for group, value in mean.items() if group != IMAGE}

    # --- the account --------------------------------------------------------------------------

    def _account_for_files(self) -> None:
        """Records which weights were derived from each tensor of the file."""
        went: dict[str, list[str]] = {}
        for name, origin in self.account.origins.items():
            for source in origin.sources:
                went.setdefault(source, []).append(name)
        # Batch normalisation is folded into the weights that are derived from a kernel.
        kernels = {
            weight: conv.kernel
            for conv in (place.conv for place in self._theirs.values())
            for weight in conv.weights
        }
        self.account.skipped = dict(self._source.skipped)
        for tensor, names in self._source.taken.items():
            found = [n for name in names.split(", ") for n in went.get(name) or went.get(kernels[name]) or ()]
            if found:
                self.account.taken[tensor] = ", ".join(dict.fromkeys(found))
            else:
                nothing = f"{self.account.target.architecture.name!r} does not use it"
                known = (self.account.fresh[n] for n in names.split(", ") if n in self.account.fresh)
                self.account.skipped[tensor] = next(known, nothing)


def _vectors(conv: Convolution) -> list[str]:
    """Returns the names of a convolution's weights other than its kernel."""
    return [conv.norm(part) for part in BN_WEIGHTS] if conv.op.batch_norm else [conv.bias]
