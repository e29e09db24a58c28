"""The one-shot network: every network of a space inside one set of shared weights.

A network is an int32 decision vector given at run time, so one traced graph serves the whole
search. Weights are cut to the sampled widths before they are used, which saves the work a
narrower network saves; batch normalisation always uses the statistics of the batch.
"""

import dataclasses

import numpy as np

from mobiledets_tf.architecture import head, specs
from mobiledets_tf.architecture.ops import ConvOp, lower, lower_extra_level, lower_predictor
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.latency.features import Position, op_positions
from mobiledets_tf.layers import BACKBONE_NORM, HEAD_NORM
from mobiledets_tf.models.shared_weights import LayerPlan, SharedOp, Tensors, plan_layer, tensor_sizes
from mobiledets_tf.search_space import SearchLayer, SearchSpace
from mobiledets_tf.search_space.encoding import decode

# Name of a shared operation -> its tensors, or the shapes of its tensors, in one network.
Slices = dict[str, Tensors]
Sizes = dict[str, list[tf.Tensor]]


def mix_option(layer: SearchLayer) -> int:
    """The value of an op decision that means: the uniform mean of all options (op warm-up)."""
    return len(layer.op.choices)


class SupernetLayer(tf.Module):
    """One op position with the shared weights of all its options."""

    def __init__(self, space: SearchSpace, layer: SearchLayer, position: Position, in_choices, out_choices):
        super().__init__(name=None)
        self.layer = layer
        self.position = position
        self.out_choices = out_choices
        self.plan: LayerPlan = plan_layer(space, layer, position, in_choices, out_choices)
        self.ops = {
            key: SharedOp(op, BACKBONE_NORM, f"{position.name}/{key}")
            for key, op in self.plan.largest.items()
        }

    def sizes(self, decisions: tf.Tensor) -> Sizes:
        """Shapes of each operation's tensors in the network; zeros if it lacks the operation."""
        index = tf.gather(decisions, [self.position.in_filters, self.position.op, self.position.out_filters])
        return {f"{self.position.name}/{key}": self._sizes(key, index) for key in self.ops}

    def _sizes(self, key: str, index: tf.Tensor) -> list[tf.Tensor]:
        return [tf.gather_nd(table, index) for table in self.plan.sizes[key]]

    def __call__(self, x: tf.Tensor, slices: Slices, decisions: tf.Tensor) -> tf.Tensor:
        """Runs the chosen option, or the mean of all of them."""
        position, mix = self.position, mix_option(self.layer)
        chosen = decisions[position.op]
        first = tf.where(chosen == mix, 0, chosen)
        last = tf.where(chosen == mix, mix, chosen + 1)

        def body(option, total):
            return option + 1, total + self._run_option(x, slices, decisions, option)

        width = tf.gather(self.out_choices, decisions[position.out_filters])
        total = tf.zeros(tf.stack([tf.shape(x)[0], *self._out_size(x), width]))
        total.set_shape([x.shape[0], *self._out_size(x), None])
        _, total = tf.while_loop(lambda option, _: option < last, body, [first, total], parallel_iterations=1)
        return total / tf.cast(last - first, total.dtype)

    def _out_size(self, x) -> list[int]:
        return [-(-side // self.layer.strides) for side in x.shape[1:3]]

    def _run_option(self, x, slices: Slices, decisions, option) -> tf.Tensor:
        position = self.position
        index = tf.stack([decisions[position.in_filters], option, decisions[position.out_filters]])

        def branch(chain: tuple[str, ...]):
            def run():
                y = x
                for key in chain:
                    op = self.ops[key]
                    y = op.apply(y, op.slice(slices[key], self._sizes(key, index)))
                return x + y if self.layer.residual and chain else y

            return run

        chain = tf.gather(self.plan.chain_of, option)
        y = tf.switch_case(chain, [branch(chain) for chain in self.plan.chains])
        y.set_shape([x.shape[0], *self._out_size(x), None])
        return y


class Supernet(tf.Module):
    """All detectors of a space.

    Args:
      space: the search space.
      num_classes: classes without the background.
      image_size: side, or (height, width), in pixels.
      class_bias: initial bias of the class logits.

    Raises:
      InputError: image size or class count out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_classes: int,
        image_size: int | tuple[int, int],
        class_bias: float = -4.6,
    ):
        super().__init__(name="supernet")
        head.check_num_classes(num_classes)
        self.space = space
        self.num_classes = num_classes
        self.image_size = head.image_hw(image_size)
        self.stem = SharedOp(_stem_op(space), BACKBONE_NORM, "stem")
        self.layers = self._make_layers()
        self.head_ops = self._make_head(class_bias)
        # Every shared operation under its full name.
        self.ops = {"stem": self.stem} | self.head_ops
        for layer in self.layers:
            self.ops |= {f"{layer.position.name}/{key}": op for key, op in layer.ops.items()}
        self._endpoint_filters = {
            name: [path for path, _ in space.decisions].index(f"blocks/{specs.ENDPOINTS[name]}/filters")
            for name in specs.ENDPOINT_STRIDES
        }

    def _make_layers(self) -> list[SupernetLayer]:
        positions, layers = iter(op_positions(self.space)), []
        in_choices = self.space.stem_filters.choices
        for block in self.space.blocks:
            for layer in block.layers:
                out_choices = block.filters.choices
                layers.append(SupernetLayer(self.space, layer, next(positions), in_choices, out_choices))
                in_choices = out_choices
        return layers

    def _make_head(self, class_bias: float) -> dict[str, SharedOp]:
        ops = {}
        for name, chain in _head_chains(self.space, self.num_classes).items():
            initializers = keras.initializers
            kind = initializers.TruncatedNormal if name.startswith("extra") else initializers.RandomNormal
            bias = class_bias if name.endswith("class") else 0.0
            for op in chain:
                label = f"{name}_{op.name}"
                ops[label] = SharedOp(op, HEAD_NORM, label, kind(stddev=0.03), kind(stddev=0.03), bias)
        return ops

    def sizes(self, decisions: tf.Tensor) -> Sizes:
        """Shapes of all tensors of a network.

        Args:
          decisions: int32 [decisions]; an op decision may be `mix_option`.
        """
        width = tf.gather(self.space.stem_filters.choices, decisions[0])
        side = self.stem.op.kernel_size
        found = {"stem": [tf.stack([side, side, 3, width]), tf.stack([2, width])]}
        for layer in self.layers:
            found |= layer.sizes(decisions)
        for label, op in self.head_ops.items():
            found[label] = self._head_sizes(label, op.op, decisions)
        return found

    def _head_sizes(self, label: str, op: ConvOp, decisions: tf.Tensor) -> list[tf.Tensor]:
        """Operations that read C4 or C5 have that map's width at their input."""
        source = _endpoint_read_by(label)
        if source is None:
            return [tf.constant(shape) for shape in tensor_sizes(op)]
        choices = self.space.blocks[specs.ENDPOINTS[source]].filters.choices
        at_width = [
            tensor_sizes(
                dataclasses.replace(op, in_channels=c, out_channels=c if op.depthwise else op.out_channels)
            )
            for c in choices
        ]
        chosen = decisions[self._endpoint_filters[source]]
        return [tf.gather(np.array(table, np.int32), chosen) for table in zip(*at_width, strict=True)]

    def slices(self, sizes: Sizes) -> Slices:
        """Cuts all shared weights to the given shapes."""
        return {
            name: self.ops[name].slice(tuple(self.ops[name].weights), size) for name, size in sizes.items()
        }

    def gradients(self, slice_gradients: Slices, sizes: Sizes) -> list[tuple[tf.Tensor, tf.Variable]]:
        """(gradient, variable) pairs of all shared weights, from gradients of slices.

        Slices of operations that the network lacks are empty: their variables get zeros.
        """
        pairs = []
        for name, gradients in slice_gradients.items():
            op = self.ops[name]
            pairs += zip(op.pad(gradients, sizes[name]), op.weights, strict=True)
        return pairs

    def __call__(self, images: tf.Tensor, slices: Slices, decisions: tf.Tensor) -> list[tf.Tensor]:
        """Runs one network.

        Args:
          images: float32 [batch, height, width, 3] in [-1, 1].
          slices: of `self.slices(self.sizes(decisions))`.
          decisions: int32 [decisions].

        Returns:
          [raw_boxes [batch, anchors, 4], class_logits [batch, anchors, num_classes + 1]].
        """
        x, block_ends = self.stem.apply(images, slices["stem"]), []
        for layer in self.layers:
            mine = {key: slices[f"{layer.position.name}/{key}"] for key in layer.ops}
            x = layer(x, mine, decisions)
            block_ends.append((layer.position.out_filters, x))
        ends = dict(block_ends)
        maps = [ends[self._endpoint_filters[name]] for name in specs.ENDPOINT_STRIDES]
        for level in range(1, len(self.space.extra_filters) + 1):
            maps.append(self._run_head(f"extra{level}", maps[-1], slices))
        return [self._predict(maps, task, columns, slices) for task, columns in self._tasks()]

    def _tasks(self):
        return (("box", head.BOX_CODE_SIZE), ("class", self.num_classes + 1))

    def _predict(self, maps, task: str, columns: int, slices: Slices) -> tf.Tensor:
        rows = []
        for index, x in enumerate(maps):
            y = self._run_head(f"predictor{index}_{task}", x, slices)
            cells = x.shape[1] * x.shape[2] * self.space.anchors_per_location[index]
            rows.append(tf.reshape(y, [-1, cells, columns]))
        return tf.concat(rows, axis=1)

    def _run_head(self, name: str, x: tf.Tensor, slices: Slices) -> tf.Tensor:
        for label, op in self.head_ops.items():
            if label.rpartition("_")[0] == name:
                x = op.apply(x, slices[label])
        return x

    def l2(self, slices: Slices) -> tf.Tensor:
        """Half the sum of squares of the sliced kernels; a scalar. Empty slices add nothing."""
        kernels = [kernel for name, tensors in slices.items() for kernel in self.ops[name].kernels(tensors)]
        return tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])

    def detector_weights(self, decisions: np.ndarray) -> dict[str, np.ndarray]:
        """The shared weights of a network under the names of `build_detector`'s weights.

        BN statistics are not among them: the search has none.
        """
        slices = self.slices(self.sizes(tf.constant(decisions, tf.int32)))
        weights = _named("stem_conv", self.stem, slices["stem"])
        names = iter(_kept_layer_names(self.space, decisions))
        for layer in self.layers:
            chain = layer.plan.chains[layer.plan.chain_of[decisions[layer.position.op]]]
            name = next(names) if chain else None
            for key in chain:
                role = layer.ops[key].op.name
                weights |= _named(f"{name}_{role}", layer.ops[key], slices[f"{layer.position.name}/{key}"])
        for label, op in self.head_ops.items():
            weights |= _named(label, op, slices[label])
        return weights


def _stem_op(space: SearchSpace) -> ConvOp:
    return lower(specs.ConvSpec(max(space.stem_filters.choices), strides=2), 3, space.activation, None)[0]


def _head_chains(space: SearchSpace, num_classes: int) -> dict[str, tuple[ConvOp, ...]]:
    """Name -> operations, at the largest widths, in the order they run."""
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


def _named(name: str, op: SharedOp, tensors: Tensors) -> dict[str, np.ndarray]:
    """Tensors of one operation under the names that plain Keras layers give them."""
    found = {}
    for variable, tensor in zip(op.weights, tensors, strict=True):
        suffix = variable.name.rpartition("/")[2].removesuffix(":0")
        if suffix == "scale_offset":
            found[f"{name}_bn/gamma"], found[f"{name}_bn/beta"] = tensor.numpy()
        elif "_" in suffix:  # reduce_kernel and the like, of a squeeze-excite
            part, _, kind = suffix.partition("_")
            found[f"{name}_{part}/{kind}"] = tensor.numpy()
        else:
            kind = "depthwise_kernel" if suffix == "kernel" and op.op.depthwise else suffix
            found[f"{name}/{kind}"] = tensor.numpy()
    return found
