"""Weights that all networks of a space share, kept at their largest size.

Every convolution of every option of a layer is lowered by `architecture.ops`. Convolutions
with the same role share one kernel: expansions and Tucker ratios take slices of one kernel, 1x1
convolutions are shared between kernel sizes, spatial kernels of different size are separate
(TuNAS, arXiv 2008.06120). How wide a slice is in a given network is looked up in a table made
from the same lowering, so no rounding rule is written twice.
"""

import dataclasses
import itertools

import numpy as np

from mobiledets_tf.architecture.ops import ConvOp, Op, SqueezeExciteOp, lower
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.latency.features import Position
from mobiledets_tf.layers import BatchNorm, DepthwiseHeNormal
from mobiledets_tf.layers.activations import hard_swish
from mobiledets_tf.search_space import SKIP, SearchLayer, SearchSpace

# What an operation holds, in order: kernel, then BN's scale and offset [2, channels], or bias;
# a squeeze-excite has two kernels and two biases.
Tensors = tuple[tf.Tensor, ...]


def key_of(op_kind: str, op: Op) -> str:
    """Role of an operation among the options of its layer; equal keys share weights."""
    spatial = isinstance(op, ConvOp) and (op.depthwise or op.kernel_size > 1)
    return f"{op_kind}_{op.name}" + (f"_k{op.kernel_size}" if spatial else "")


def activate(x: tf.Tensor, activation: str | None) -> tf.Tensor:
    """Applies an activation of an architecture."""
    if activation is None:
        return x
    return {"relu6": tf.nn.relu6, "hard_swish": hard_swish}[activation](x)


class SharedOp(tf.Module):
    """One operation at its largest size.

    Args:
      op: the operation with its largest channel counts.
      norm: BN settings; statistics are always those of the batch.
      name: unique in the supernet.
      initializer: of a full convolution's kernel; he_normal by default.
      depthwise_initializer: of a depthwise kernel.
      bias: initial bias where there is no BN.
    """

    def __init__(
        self,
        op: Op,
        norm: BatchNorm,
        name: str,
        initializer: keras.initializers.Initializer | None = None,
        depthwise_initializer: keras.initializers.Initializer | None = None,
        bias: float = 0.0,
    ):
        super().__init__(name=None)
        self.op = op
        self.norm = norm
        self.label = name
        draw = initializer or keras.initializers.HeNormal()
        if isinstance(op, SqueezeExciteOp):
            self.weights = self._make_squeeze_excite()
        else:
            self.weights = self._make_conv(draw, depthwise_initializer or DepthwiseHeNormal(), bias)

    def _variable(self, suffix: str, value) -> tf.Variable:
        return tf.Variable(value, name=f"{self.label}/{suffix}")

    def _make_conv(self, draw, draw_depthwise, bias: float) -> list[tf.Variable]:
        op, side = self.op, self.op.kernel_size
        if op.depthwise:
            kernel = draw_depthwise((side, side, op.in_channels, 1))
        else:
            kernel = draw((side, side, op.in_channels, op.out_channels))
        weights = [self._variable("kernel", kernel)]
        if op.batch_norm:
            # One variable for both: the traced graph holds a slice of each weight of each option.
            ones_and_zeros = tf.stack([tf.ones(op.out_channels), tf.zeros(op.out_channels)])
            weights += [self._variable("scale_offset", ones_and_zeros)]
        else:
            weights += [self._variable("bias", tf.fill([op.out_channels], bias))]
        return weights

    def _make_squeeze_excite(self) -> list[tf.Variable]:
        op, he_normal = self.op, keras.initializers.HeNormal
        return [
            self._variable("reduce_kernel", he_normal()((1, 1, op.channels, op.hidden))),
            self._variable("reduce_bias", tf.zeros(op.hidden)),
            self._variable("expand_kernel", he_normal()((1, 1, op.hidden, op.channels))),
            self._variable("expand_bias", tf.zeros(op.channels)),
        ]

    def slice(self, tensors: Tensors, sizes: list[tf.Tensor]) -> Tensors:
        """Cuts tensors down to a network's sizes.

        Args:
          tensors: the variables, or a wider slice of them.
          sizes: for each tensor its shape in the network, int32 [rank]; see `tensor_sizes`.
            Zeros give empty tensors.
        """
        return tuple(
            tf.slice(t, np.zeros(len(t.shape), np.int32), size)
            for t, size in zip(tensors, sizes, strict=True)
        )

    def pad(self, gradients: Tensors, sizes: list[tf.Tensor]) -> list[tf.Tensor]:
        """Gradients of sliced tensors as gradients of the variables; zeros where nothing was sliced."""
        padded = []
        for gradient, size, variable in zip(gradients, sizes, self.weights, strict=True):
            missing = np.array(variable.shape, np.int32) - size
            padded.append(tf.pad(gradient, tf.stack([tf.zeros_like(missing), missing], axis=1)))
            padded[-1].set_shape(variable.shape)
        return padded

    def apply(self, x: tf.Tensor, tensors: Tensors) -> tf.Tensor:
        """Runs the operation on [batch, height, width, channels] with sliced tensors."""
        if isinstance(self.op, SqueezeExciteOp):
            return self._squeeze_excite(x, *tensors)
        op = self.op
        if op.depthwise:
            x = tf.nn.depthwise_conv2d(x, tensors[0], [1, op.strides, op.strides, 1], "SAME")
        else:
            x = tf.nn.conv2d(x, tensors[0], op.strides, "SAME")
        if not op.batch_norm:
            return activate(x + tensors[1], op.activation)
        normalised = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=tensors[1][0], offset=tensors[1][1], mean=[], variance=[],
            epsilon=self.norm.epsilon, is_training=True,
        )  # fmt: skip
        return activate(normalised.y, op.activation)

    def _squeeze_excite(self, x, reduce_kernel, reduce_bias, expand_kernel, expand_bias):
        gate = tf.reduce_mean(x, [1, 2], keepdims=True)
        gate = activate(tf.nn.conv2d(gate, reduce_kernel, 1, "SAME") + reduce_bias, self.op.activation)
        return x * tf.sigmoid(tf.nn.conv2d(gate, expand_kernel, 1, "SAME") + expand_bias)

    def kernels(self, tensors: Tensors) -> list[tf.Tensor]:
        """The tensors that L2 acts on."""
        return [t for t, w in zip(tensors, self.weights, strict=True) if "kernel" in w.name]


def tensor_sizes(op: Op) -> tuple[tuple[int, ...], ...]:
    """Shapes of an operation's tensors, in the order of `SharedOp.weights`."""
    if isinstance(op, SqueezeExciteOp):
        wide, narrow = op.channels, op.hidden
        return (1, 1, wide, narrow), (narrow,), (1, 1, narrow, wide), (wide,)
    side, outputs = op.kernel_size, op.out_channels
    kernel = (side, side, op.in_channels, 1 if op.depthwise else outputs)
    return kernel, (2, outputs) if op.batch_norm else (outputs,)


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """All that one op position needs, made from the lowering of all its options.

    Attributes:
      largest: key -> operation with its largest channel counts.
      sizes: key -> one table per tensor, int32 [input widths, options + 1, output widths, rank]:
        its shape. The last option is the mix of all, with the largest shape. Zeros where an
        option lacks the operation.
      chains: distinct sequences of keys; the empty one is the skip.
      chain_of: int32 [options]: option -> index into `chains`.
    """

    largest: dict[str, Op]
    sizes: dict[str, list[np.ndarray]]
    chains: tuple[tuple[str, ...], ...]
    chain_of: np.ndarray


def plan_layer(
    space: SearchSpace, layer: SearchLayer, position: Position, in_choices: tuple[int, ...], out_choices
) -> LayerPlan:
    """Lowers every option of an op position at every pair of widths."""
    largest: dict[str, Op] = {}
    n_in, n_options, n_out = position.shape
    sizes: dict[str, list[np.ndarray]] = {}
    chains: list[tuple[str, ...]] = []
    chain_of = np.zeros(n_options, np.int32)
    for o, option in enumerate(layer.op.choices):
        chain: tuple[str, ...] = ()
        for (i, c_in), (j, c_out) in itertools.product(enumerate(in_choices), enumerate(out_choices)):
            if option == SKIP or (layer.residual and c_in != c_out):
                continue
            spec = option.to_spec(c_out, layer.strides, layer.residual)
            ops = lower(spec, c_in, space.activation, space.se_ratio)
            chain = tuple(key_of(option.op, op) for op in ops)
            for key, op in zip(chain, ops, strict=True):
                shapes = tensor_sizes(op)
                tables = sizes.setdefault(
                    key, [np.zeros((n_in, n_options + 1, n_out, len(s)), np.int32) for s in shapes]
                )
                for table, shape in zip(tables, shapes, strict=True):
                    table[i, o, j] = shape
                largest[key] = _larger(largest.get(key), op)
        if chain not in chains:
            chains.append(chain)
        chain_of[o] = chains.index(chain)
    for table in itertools.chain.from_iterable(sizes.values()):
        table[:, -1] = table.max(axis=1)
    return LayerPlan(largest, sizes, tuple(chains), chain_of)


def _larger(before: Op | None, op: Op) -> Op:
    """The operation with the larger of both channel counts."""
    if before is None:
        return op
    fields = ("channels", "hidden") if isinstance(op, SqueezeExciteOp) else ("in_channels", "out_channels")
    return dataclasses.replace(op, **{f: max(getattr(before, f), getattr(op, f)) for f in fields})
