"""Supernet (one-shot network): all networks of a search space with one set of shared weights.

A network is selected by an int32 decision vector at run time, so one traced graph serves the whole
search. Batch normalisation always uses the statistics of the batch. `models.execution` defines how
the weights of a network are read from the shared ones.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from mobiledets_tf.architecture import head, specs
from mobiledets_tf.architecture.ops import ConvOp, lower, lower_extra_level, lower_predictor
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.layers import BACKBONE_NORM, HEAD_NORM
from mobiledets_tf.models import shared_op
from mobiledets_tf.models.banks import Bank, Extent, corner, make_banks
from mobiledets_tf.models.execution import Execution, Taken, get_execution
from mobiledets_tf.models.position_function import PositionFunction, Structure
from mobiledets_tf.models.shared_op import Tensors
from mobiledets_tf.models.shared_start import bn_scale, initializer, stem_initializer
from mobiledets_tf.models.shared_weights import LayerPlan, SharedOp, plan_layer, tensor_sizes
from mobiledets_tf.search_space import SearchLayer, SearchSpace
from mobiledets_tf.search_space.encoding import decode
from mobiledets_tf.search_space.positions import Position, op_positions

# Name of a shared operation -> its tensors in one network.
NetworkWeights = dict[str, Tensors]
# Label of a shared tensor -> the part of it that one network uses.
NetworkExtents = dict[str, Extent]


def mix_option(layer: SearchLayer) -> int:
    """Returns the value of an op decision that selects the uniform mean of all options (op warm-up)."""
    return len(layer.op.choices)


class SupernetLayer:
    """One op position with the shared weights of all its options."""

    def __init__(
        self,
        space: SearchSpace,
        layer: SearchLayer,
        position: Position,
        in_choices: tuple[int, ...],
        out_choices: tuple[int, ...],
        functions: "_Functions",
    ):
        self.layer = layer
        self.position = position
        self.out_choices = out_choices
        self.plan: LayerPlan = plan_layer(space, layer, position, in_choices, out_choices)
        self.ops = {
            role: SharedOp(
                op,
                BACKBONE_NORM,
                f"{position.name}/{role}",
                self.plan.sizes[role],
                initializer(op),
                scale=bn_scale(op, layer.residual),
            )
            for role, op in self.plan.largest.items()
        }
        self._static = functions.execution.static
        self._function = functions.of(Structure.of(self.plan, layer.residual, self._static))
        tensors = [tensor for op in self.ops.values() for tensor in op.tensors]
        # The tables of all tensors are concatenated, so that one look-up serves them all.
        self._sizes = np.concatenate([t.table[..., : len(t.shape)] for t in tensors], axis=-1)
        self._extents = np.concatenate([t.table for t in tensors], axis=-1)
        self._columns = {t.label: t.columns for t in tensors}

    def extents(self, decisions: tf.Tensor) -> NetworkExtents:
        """Returns the part of each tensor that a network uses; zeros if it does not have the operation."""
        position = self.position
        index = tf.gather(decisions, [position.in_filters, position.op, position.out_filters])
        parts = tf.split(
            tf.gather_nd(self._extents, index), [n for columns in self._columns.values() for n in columns]
        )
        left = iter(parts)
        return {label: Extent(*(next(left) for _ in columns)) for label, columns in self._columns.items()}

    def _option_sizes(self, decisions: tf.Tensor) -> tf.Tensor:
        """Returns all tensors' shapes in each option, the mix last; int32 [options + 1, sum of ranks]."""
        at_input = tf.gather(self._sizes, decisions[self.position.in_filters])
        return tf.gather(at_input, decisions[self.position.out_filters], axis=1)

    def __call__(self, x: tf.Tensor, weights: NetworkWeights, decisions: tf.Tensor) -> tf.Tensor:
        """Runs the chosen option, or the mean of all options.

        Args:
          x: float32 [batch, height, width, channels].
          weights: weights of the network by the name of the shared operation.
          decisions: int32 [decisions].
        """
        mine = {role: weights[f"{self.position.name}/{role}"] for role in self.ops}
        y = self._function(x, mine, decisions[self.position.op], self._option_sizes(decisions))
        out_size = [-(-side // self.layer.strides) for side in x.shape[1:3]]
        y.set_shape([x.shape[0], *out_size, max(self.out_choices) if self._static else None])
        return y


class _Functions:
    """Caches one `PositionFunction` per structure."""

    def __init__(self, execution: Execution):
        self.execution = execution
        self._known: dict[Structure, PositionFunction] = {}

    def of(self, structure: Structure) -> PositionFunction:
        if structure not in self._known:
            self._known[structure] = PositionFunction(structure, BACKBONE_NORM, self.execution)
        return self._known[structure]


class Supernet(tf.Module):
    """All detectors of a search space with shared weights.

    Args:
      space: the search space.
      num_classes: number of classes without the background.
      image_size: side, or (height, width), in pixels.
      class_bias: initial bias of the class logits.
      execution: `sliced` or `masked`; see `models.execution`.

    Raises:
      InputError: image size or class count is out of range, or the execution is unknown.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_classes: int,
        image_size: int | tuple[int, int],
        class_bias: float = -4.6,
        execution: str = "sliced",
    ):
        super().__init__(name="supernet")
        self.execution = get_execution(execution)
        head.check_num_classes(num_classes)
        self.space = space
        self.num_classes = num_classes
        self.image_size = head.image_hw(image_size)
        stem = _stem_op(space)
        stem_tables = _tables(stem, out_channels=space.stem_filters.choices)
        self.stem = SharedOp(stem, BACKBONE_NORM, "stem", stem_tables, stem_initializer())
        decision_paths = [path for path, _ in space.decisions]
        self._endpoint_filters = {
            name: decision_paths.index(f"blocks/{specs.ENDPOINTS[name]}/filters")
            for name in specs.ENDPOINT_STRIDES
        }
        self.layers = self._make_layers()
        self.head_ops = self._make_head(class_bias)
        # Every shared operation by its full name.
        self.ops = {"stem": self.stem} | self.head_ops
        for layer in self.layers:
            self.ops |= {f"{layer.position.name}/{role}": op for role, op in layer.ops.items()}
        self.banks = make_banks(tensor for op in self.ops.values() for tensor in op.tensors)

    def _make_layers(self) -> list[SupernetLayer]:
        positions, layers = iter(op_positions(self.space)), []
        functions = _Functions(self.execution)
        in_choices = self.space.stem_filters.choices
        for block in self.space.blocks:
            for layer in block.layers:
                out_choices = block.filters.choices
                layers.append(
                    SupernetLayer(self.space, layer, next(positions), in_choices, out_choices, functions)
                )
                in_choices = out_choices
        return layers

    def _make_head(self, class_bias: float) -> dict[str, SharedOp]:
        ops = {}
        for name, chain in _head_chains(self.space, self.num_classes).items():
            normal = keras.initializers.RandomNormal
            draw = keras.initializers.TruncatedNormal if name.startswith("extra") else normal
            bias = class_bias if name.endswith("class") else 0.0
            for op in chain:
                label = f"{name}_{op.name}"
                tables = self._head_tables(label, op)
                # Each operation has its own initialiser: one that is used twice may draw equal values.
                ops[label] = SharedOp(op, HEAD_NORM, label, tables, draw(stddev=0.03), bias)
        return ops

    def _head_tables(self, label: str, op: ConvOp) -> list[np.ndarray]:
        """Returns the weight shapes of a head operation; one that reads C4 or C5 depends on its width."""
        source = _endpoint_read_by(label)
        if source is None:
            return _tables(op, in_channels=(op.in_channels,))
        return _tables(op, in_channels=self.space.blocks[specs.ENDPOINTS[source]].filters.choices)

    def extents(self, decisions: tf.Tensor) -> NetworkExtents:
        """Returns the part of every shared tensor that a network uses.

        Args:
          decisions: int32 [decisions]; an op decision may be `mix_option`.
        """
        found = self.stem.extents(decisions[:1])
        for layer in self.layers:
            found |= layer.extents(decisions)
        for label, op in self.head_ops.items():
            source = _endpoint_read_by(label)
            index = 0 if source is None else decisions[self._endpoint_filters[source]]
            found |= op.extents(tf.reshape(index, [1]))
        return found

    def take(self, extents: NetworkExtents) -> list[Taken]:
        """Reads the weights of a network as rows of each bank."""
        return [self.execution.take(bank, _of(bank, extents)) for bank in self.banks]

    def weights(self, rows: list[tf.Tensor], extents: NetworkExtents) -> NetworkWeights:
        """Converts the weights of a network from rows to tensors.

        Args:
          rows: rows of each bank, as returned by `take`.
          extents: extents of the network, as returned by `extents`.
        """
        tensors: NetworkWeights = {}
        for bank, mine in zip(self.banks, rows, strict=True):
            cut = self.execution.tensors(bank, mine, _of(bank, extents))
            tensors |= {shared.label: tensor for shared, tensor in zip(bank.tensors, cut, strict=True)}
        return {name: tuple(tensors[t.label] for t in op.tensors) for name, op in self.ops.items()}

    def weights_of(self, decisions: tf.Tensor) -> NetworkWeights:
        """Reads the weights of a network as tensors."""
        extents = self.extents(decisions)
        return self.weights([taken.rows for taken in self.take(extents)], extents)

    def __call__(self, images: tf.Tensor, weights: NetworkWeights, decisions: tf.Tensor) -> list[tf.Tensor]:
        """Runs one network.

        Args:
          images: float32 [batch, height, width, 3] in [-1, 1].
          weights: weights of the network, as returned by `self.weights`.
          decisions: int32 [decisions].

        Returns:
          [raw_boxes [batch, anchors, 4], class_logits [batch, anchors, num_classes + 1]].
        """
        x, block_ends = shared_op.run(self.stem.op, self.stem.norm, images, weights["stem"]), []
        for layer in self.layers:
            x = layer(x, weights, decisions)
            block_ends.append((layer.position.out_filters, x))
        ends = dict(block_ends)
        maps = [ends[self._endpoint_filters[name]] for name in specs.ENDPOINT_STRIDES]
        for level in range(1, len(self.space.extra_filters) + 1):
            maps.append(self._run_head(f"extra{level}", maps[-1], weights))
        return [self._predict(maps, task, columns, weights) for task, columns in self._tasks()]

    def _tasks(self) -> tuple[tuple[str, int], ...]:
        return (("box", head.BOX_CODE_SIZE), ("class", self.num_classes + 1))

    def _predict(
        self, maps: Sequence[tf.Tensor], task: str, columns: int, weights: NetworkWeights
    ) -> tf.Tensor:
        rows = []
        for index, x in enumerate(maps):
            y = self._run_head(f"predictor{index}_{task}", x, weights)
            cells = x.shape[1] * x.shape[2] * self.space.anchors_per_location[index]
            rows.append(tf.reshape(y, [-1, cells, columns]))
        return tf.concat(rows, axis=1)

    def _run_head(self, name: str, x: tf.Tensor, weights: NetworkWeights) -> tf.Tensor:
        for label, op in self.head_ops.items():
            if label.rpartition("_")[0] == name:
                x = shared_op.run(op.op, op.norm, x, weights[label])
        return x

    def l2(self, rows: list[tf.Tensor]) -> tf.Tensor:
        """Returns half the sum of squares of a network's kernels, a scalar.

        Args:
          rows: rows of each bank, as returned by `take`.
        """
        kernels = [mine for bank, mine in zip(self.banks, rows, strict=True) if bank.is_kernel]
        return tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])

    def detector_weights(self, decisions: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the shared weights of a network under the names of `build_detector`'s weights.

        BN statistics are missing because the search has none.
        """
        found: dict[str, np.ndarray] = {}
        for names, part in self._parts(decisions, [bank.rows.read_value().numpy() for bank in self.banks]):
            # The scale and offset of a BN are stored in one tensor.
            found |= {names[0]: part} if len(names) == 1 else dict(zip(names, part, strict=True))
        return {name: np.array(value) for name, value in found.items()}

    def assign(self, decisions: np.ndarray, weights: Mapping[str, np.ndarray]) -> None:
        """Writes a network's weights into the shared weights; the inverse of `detector_weights`.

        Args:
          decisions: int32 [decisions].
          weights: weights by the names of `detector_weights`; other names are ignored.

        Raises:
          KeyError: a weight is missing.
        """
        rows = [bank.rows.read_value().numpy() for bank in self.banks]
        for names, part in self._parts(decisions, rows):
            given = [np.asarray(weights[name]) for name in names]
            part[...] = given[0] if len(names) == 1 else np.stack(given)
        for bank, values in zip(self.banks, rows, strict=True):
            bank.rows.assign(values)

    def _parts(
        self, decisions: np.ndarray, rows: Sequence[np.ndarray]
    ) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yields (canonical names, their part of a shared tensor) for all weights of a network.

        Args:
          decisions: int32 [decisions].
          rows: rows of each bank; the yielded parts are views of these.
        """
        extents = self.extents(tf.constant(decisions, tf.int32))
        places = {
            tensor.label: values
            for bank, values in zip(self.banks, rows, strict=True)
            for tensor in bank.tensors
        }
        for name, op in self._named_ops(decisions):
            for shared in op.tensors:
                size = extents[shared.label].size.numpy()
                begin = corner(shared.shape, size).numpy()
                cut = tuple(slice(b, b + s) for b, s in zip(begin, size, strict=True))
                yield _canonical_names(name, op, shared.label), shared.view(places[shared.label])[cut]

    def _named_ops(self, decisions: np.ndarray) -> Iterator[tuple[str, SharedOp]]:
        """Yields the operations of a network with the names of the corresponding plain Keras layers."""
        yield "stem_conv", self.stem
        names = iter(_kept_layer_names(self.space, decisions))
        for layer in self.layers:
            chain = layer.plan.chains[decisions[layer.position.op]]
            name = next(names) if chain else None
            for op in chain:
                yield f"{name}_{op.name}", layer.ops[op.name]
        yield from self.head_ops.items()


def _of(bank: Bank, extents: NetworkExtents) -> list[Extent]:
    return [extents[tensor.label] for tensor in bank.tensors]


def _tables(op: ConvOp, **widths: tuple[int, ...]) -> list[np.ndarray]:
    """Returns the shapes of an operation's tensors for each choice of its input or output width."""
    ((side, choices),) = widths.items()
    both = {"in_channels", "out_channels"} if op.depthwise else {side}
    changes: list[dict[str, Any]] = [dict.fromkeys(both, choice) for choice in choices]
    at_width = [tensor_sizes(dataclasses.replace(op, **change)) for change in changes]
    return [np.array(table, np.int32) for table in zip(*at_width, strict=True)]


def _stem_op(space: SearchSpace) -> ConvOp:
    stem = specs.ConvSpec(max(space.stem_filters.choices), strides=2)
    return cast(ConvOp, lower(stem, 3, space.activation, None)[0])


def _head_chains(space: SearchSpace, num_classes: int) -> dict[str, tuple[ConvOp, ...]]:
    """Returns name -> operations at the largest widths, in the order in which they run."""
    c4, c5 = (max(space.blocks[specs.ENDPOINTS[name]].filters.choices) for name in ("C4", "C5"))
    channels = [c4, c5, *space.extra_filters]
    chains = {
        f"extra{level}": lower_extra_level(channels[level], filters)
        for level, filters in enumerate(space.extra_filters, 1)
    }
    for index, (width, anchors) in enumerate(zip(channels, space.anchors_per_location, strict=True)):
        chains[f"predictor{index}_box"] = lower_predictor(width, anchors * head.BOX_CODE_SIZE)
        chains[f"predictor{index}_class"] = lower_predictor(width, anchors * (num_classes + 1))
    return chains


def _endpoint_read_by(label: str) -> str | None:
    if label.startswith("predictor0_"):
        return "C4"
    return "C5" if label.startswith("predictor1_") or label == "extra1_reduce" else None


def _kept_layer_names(space: SearchSpace, decisions: np.ndarray) -> list[str]:
    return [name for name, _ in decode(space, decisions).named_layers()[1:]]


def _canonical_names(name: str, op: SharedOp, label: str) -> tuple[str, ...]:
    """Returns a tensor's name in the plain Keras layers; BN's scale and offset have two names."""
    suffix = label.rpartition("/")[2]
    if suffix == "scale_offset":
        return f"{name}_bn/gamma", f"{name}_bn/beta"
    if "_" in suffix:  # A tensor of a squeeze-excite, for instance reduce_kernel.
        part, _, kind = suffix.partition("_")
        return (f"{name}_{part}/{kind}",)
    is_depthwise = isinstance(op.op, ConvOp) and op.op.depthwise
    return (f"{name}/{'depthwise_kernel' if suffix == 'kernel' and is_depthwise else suffix}",)
