"""Weights that all networks of a search space share, stored at their largest size.

Every convolution of every option of a layer is lowered by `architecture.ops`. Convolutions with the
same name, which is their role in the layer, share one kernel across all options: expansions and Tucker
ratios use its first channels, small kernels its middle (as in once-for-all, arXiv 1908.09791; TuNAS,
arXiv 2008.06120, has a separate kernel for each size and learns far more slowly, see `shared_start`).
The size of a network's slice is looked up in a table made by the same lowering, so rounding rules are
defined only once.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

from mobiledets_tf.architecture.ops import ConvOp, Op, SqueezeExciteOp, lower
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.layers import BatchNorm
from mobiledets_tf.models.banks import Extent, SharedTensor
from mobiledets_tf.search_space import SKIP, SearchLayer, SearchSpace
from mobiledets_tf.search_space.positions import Position


class SharedOp:
    """Shared weights of one operation at its largest size.

    Args:
      op: the operation with its largest channel counts.
      norm: BN settings.
      name: unique name in the supernet.
      tables: for each tensor its shapes in all networks, int32 [..., rank]; see `tensor_sizes`.
      initializer: initialiser of a convolution's kernel; he_normal by default.
      bias: initial bias of a convolution without BN.
      scale: initial scale of the BN.
    """

    def __init__(
        self,
        op: Op,
        norm: BatchNorm,
        name: str,
        tables: list[np.ndarray],
        initializer: keras.initializers.Initializer | None = None,
        bias: float = 0.0,
        scale: float = 1.0,
    ):
        self.op = op
        self.norm = norm
        self.label = name
        if isinstance(op, SqueezeExciteOp):
            values = _squeeze_excite_values(op)
        else:
            values = _conv_values(op, initializer or keras.initializers.HeNormal(), bias, scale)
        self.tensors = [
            SharedTensor(f"{name}/{suffix}", value, table)
            for (suffix, value), table in zip(values.items(), tables, strict=True)
        ]

    def extents(self, index: tf.Tensor) -> dict[str, Extent]:
        """Returns the part of each tensor that a network uses, by the tensor's label.

        Args:
          index: index of the network's entry in the tables, int32 [n].
        """
        return {
            tensor.label: Extent(*tf.split(tf.gather_nd(tensor.table, index), tensor.columns))
            for tensor in self.tensors
        }


def _conv_values(op: ConvOp, draw: Any, bias: float, scale: float) -> dict[str, tf.Tensor]:
    side = op.kernel_size
    kernel = draw((side, side, op.in_channels, 1 if op.depthwise else op.out_channels))
    if not op.batch_norm:
        return {"kernel": kernel, "bias": tf.fill([op.out_channels], bias)}
    # Scale and offset share one tensor because the traced graph slices each tensor of each option.
    return {
        "kernel": kernel,
        "scale_offset": tf.stack([tf.fill([op.out_channels], scale), tf.zeros(op.out_channels)]),
    }


def _squeeze_excite_values(op: SqueezeExciteOp) -> dict[str, tf.Tensor]:
    he_normal = keras.initializers.HeNormal
    return {
        "reduce_kernel": he_normal()((1, 1, op.channels, op.hidden)),
        "reduce_bias": tf.zeros(op.hidden),
        "expand_kernel": he_normal()((1, 1, op.hidden, op.channels)),
        "expand_bias": tf.zeros(op.channels),
    }


def tensor_sizes(op: Op) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes of an operation's tensors in the order of `SharedOp.tensors`."""
    if isinstance(op, SqueezeExciteOp):
        wide, narrow = op.channels, op.hidden
        return (1, 1, wide, narrow), (narrow,), (1, 1, narrow, wide), (wide,)
    side, outputs = op.kernel_size, op.out_channels
    kernel = (side, side, op.in_channels, 1 if op.depthwise else outputs)
    return kernel, (2, outputs) if op.batch_norm else (outputs,)


# The operations of an option in the order in which they run.
Chain = tuple[Op, ...]


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """Operations and weight shapes of one op position, made by lowering all its options.

    Attributes:
      largest: role -> operation with the largest kernel and channel counts.
      sizes: role -> one table per tensor with its shapes, int32 [input widths, options + 1, output
        widths, rank]. The last option is the mix of all options and has the largest shape. The shape
        is zero if an option does not have the role.
      chains: chain of each option, with the widths of an arbitrary network. The chain of a skip is empty.
    """

    largest: dict[str, Op]
    sizes: dict[str, list[np.ndarray]]
    chains: tuple[Chain, ...]


def plan_layer(
    space: SearchSpace,
    layer: SearchLayer,
    position: Position,
    in_choices: tuple[int, ...],
    out_choices: tuple[int, ...],
) -> LayerPlan:
    """Lowers every option of an op position for every pair of input and output widths."""
    largest: dict[str, Op] = {}
    n_in, n_options, n_out = position.shape
    sizes: dict[str, list[np.ndarray]] = {}
    chains: list[Chain] = []
    for o, option in enumerate(layer.op.choices):
        chain: Chain = ()
        for (i, c_in), (j, c_out) in itertools.product(enumerate(in_choices), enumerate(out_choices)):
            if option == SKIP or (layer.residual and c_in != c_out):
                continue
            spec = option.to_spec(c_out, layer.strides, layer.residual)
            chain = lower(spec, c_in, space.activation, space.se_ratio)
            for op in chain:
                shapes = tensor_sizes(op)
                tables = sizes.setdefault(
                    op.name, [np.zeros((n_in, n_options + 1, n_out, len(s)), np.int32) for s in shapes]
                )
                for table, shape in zip(tables, shapes, strict=True):
                    table[i, o, j] = shape
                largest[op.name] = _larger(largest.get(op.name), op)
        chains.append(chain)
    for table in itertools.chain.from_iterable(sizes.values()):
        table[:, -1] = table.max(axis=1)
    return LayerPlan(largest, sizes, tuple(chains))


def _larger(before: Op | None, op: Op) -> Op:
    """Returns the operation with the larger of the two channel counts and kernel sizes."""
    if before is None:
        return op
    fields: tuple[str, ...] = ("channels", "hidden")
    if isinstance(op, ConvOp):
        fields = ("in_channels", "out_channels", "kernel_size")
    return dataclasses.replace(op, **{f: max(getattr(before, f), getattr(op, f)) for f in fields})
