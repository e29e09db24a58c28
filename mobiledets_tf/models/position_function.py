"""What an op position of the supernet computes.

A position's options are branches of one graph. Most positions of a space have the same branches
and differ in widths and map sizes only, which are known at run time: what is large, the mean of
all options, is traced once for all positions of one structure.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from mobiledets_tf.architecture.ops import Op, SqueezeExciteOp
from mobiledets_tf.compat import tf
from mobiledets_tf.layers import BatchNorm
from mobiledets_tf.models import shared_op
from mobiledets_tf.models.execution import Execution
from mobiledets_tf.models.shared_op import Tensors
from mobiledets_tf.models.shared_weights import Chain, LayerPlan, tensor_sizes


@dataclasses.dataclass(frozen=True)
class Structure:
    """What a position computes, without its widths; equal structures share their graphs.

    Attributes:
      ranks: role -> dimensions of each of its tensors, as pairs.
      chains: what differs among those of the options, widths 0.
      chain_of: option -> index into `chains`.
      residual: whether the input is added to what a chain gives.
    """

    ranks: tuple[tuple[str, tuple[int, ...]], ...]
    chains: tuple[Chain, ...]
    chain_of: tuple[int, ...]
    residual: bool

    @classmethod
    def of(cls, plan: LayerPlan, residual: bool, static: bool) -> "Structure":
        """The structure of a position's plan; static: with sizes of kernels."""
        chains = [tuple(_plain(op, static) for op in chain) for chain in plan.chains]
        distinct = tuple(dict.fromkeys(chains))
        ranks = tuple((role, tuple(len(s) for s in tensor_sizes(op))) for role, op in plan.largest.items())
        return cls(ranks, distinct, tuple(distinct.index(chain) for chain in chains), residual)

    @property
    def mix(self) -> int:
        """The option that means: the mean of all options."""
        return len(self.chain_of)


def _plain(op: Op, static: bool) -> Op:
    """The operation without what its tensors tell."""
    if isinstance(op, SqueezeExciteOp):
        return dataclasses.replace(op, channels=0, hidden=0)
    told = {"in_channels": 0, "out_channels": 0} | ({} if static else {"kernel_size": 0})
    return dataclasses.replace(op, **told)


class PositionFunction:
    """Runs the chosen option of a position, or the mean of all of them.

    Args:
      structure: of the position.
      norm: BN settings.
      execution: of the supernet.
    """

    def __init__(self, structure: Structure, norm: BatchNorm, execution: Execution):
        self.structure = structure
        self._ranks = dict(structure.ranks)
        self._norm = norm
        self._execution = execution
        self._traced: dict[tuple, Callable] = {}

    def __call__(
        self, x: tf.Tensor, tensors: dict[str, Tensors], option: tf.Tensor, sizes: tf.Tensor
    ) -> tf.Tensor:
        """Runs it.

        Args:
          x: float32 [batch, height, width, channels].
          tensors: role -> tensors of the chosen option; of the mix: large enough for all options.
          option: int32 scalar; `structure.mix` is the mean of all.
          sizes: int32 [options + 1, sum of ranks]: the shapes of all tensors in each option.

        Returns:
          float32 [batch, height, width, channels].
        """
        flat = [tensor for role in self._ranks for tensor in tensors[role]]
        if self._execution.static:
            return self._call(self._run_again_for_gradient, x, option, sizes, *flat)
        # Not a graph of its own: nothing after a call begins before the last of its results is there.
        return self._run(x, option, sizes, *flat)

    def _call(self, run: Callable, *arguments: tf.Tensor) -> tf.Tensor:
        """Calls a method as a graph of its own, traced once for arguments of equal shapes."""
        specs = tuple(self._spec(argument) for argument in arguments)
        key = (run.__name__, specs)
        if key not in self._traced:
            # Not inlined: one copy serves all positions.
            # A Python function each: TensorFlow warns of many traces of one.
            self._traced[key] = tf.function(
                lambda *given: run(*given), input_signature=specs, autograph=False,
                experimental_attributes={"_noinline": True},
            )  # fmt: skip
        return self._traced[key](*arguments)

    def _spec(self, argument: tf.Tensor) -> tf.TensorSpec:
        # Static shapes are what masked execution is for; elsewhere they would only cost traces.
        shape = argument.shape if self._execution.static else [None] * argument.shape.rank
        return tf.TensorSpec(shape, argument.dtype)

    def _by_role(self, flat: tuple[tf.Tensor, ...]) -> dict[str, Tensors]:
        left = iter(flat)
        return {role: tuple(next(left) for _ in ranks) for role, ranks in self._ranks.items()}

    def _run(self, x, option, sizes, *flat):
        # Apart: a step that does not mix passes over one call, not over all that a mix computes.
        mix = lambda: self._call(self._mix, x, sizes, *flat)  # noqa: E731
        return self._switch(option, lambda chain: self._chain(chain, x, *flat), mix)

    @tf.custom_gradient
    def _run_again_for_gradient(self, x, option, sizes, *flat):
        """The same; its gradient runs the option again, as TuNAS does ("rematlib").

        XLA refuses what a switch hands over to its gradient; this one hands over nothing.
        """

        def gradient(upstream):
            mix = lambda: self._call(self._mix_gradient, upstream, x, sizes, *flat)  # noqa: E731
            of = lambda chain: _gradient(functools.partial(self._chain, chain), upstream, x, *flat)  # noqa: E731
            in_x, *in_flat = self._switch(option, of, mix)
            return in_x, None, None, *in_flat

        return self._run(x, option, sizes, *flat), gradient

    def _switch(self, option: tf.Tensor, of: Callable[[Chain], Any], *mix: Callable[[], Any]):
        """What a function gives for the option's chain, or what `mix` gives."""
        chains = [functools.partial(of, chain) for chain in self.structure.chains]
        places = tf.constant([*self.structure.chain_of, *[len(chains)] * len(mix)])
        return tf.switch_case(tf.gather(places, option), [*chains, *mix])

    def _chain(self, chain: Chain, x: tf.Tensor, *flat: tf.Tensor) -> tf.Tensor:
        y, tensors = x, self._by_role(flat)
        for op in chain:
            y = shared_op.run(op, self._norm, y, self._execution.of_op(op, tensors[op.name], y.shape[-1]))
        return x + y if self.structure.residual and chain else tf.identity(y)

    @tf.custom_gradient
    def _mix(self, x, sizes, *flat):
        """The mean of all options, one after the other.

        Its gradient runs each again: what a loop keeps for it is what all options take together.
        """

        def gradient(upstream):
            in_x, *in_flat = self._call(self._mix_gradient, upstream, x, sizes, *flat)
            return in_x, None, *in_flat

        (y,) = self._mean(sizes, lambda chain, size: [self._narrow_chain(chain, size, x, *flat)])
        return y, gradient

    def _mix_gradient(self, upstream, x, sizes, *flat):
        def of(chain, size):
            return _gradient(functools.partial(self._narrow_chain, chain, size), upstream, x, *flat)

        return self._mean(sizes, of)

    def _mean(self, sizes: tf.Tensor, of: Callable[[Chain, tf.Tensor], list[tf.Tensor]]) -> list[tf.Tensor]:
        """The mean over all options of what a function gives for a chain and the shapes of its tensors."""
        structure = self.structure

        def add(option, total):
            size = tf.gather(sizes, option)
            more = self._switch(option, lambda chain: of(chain, size))
            return option + 1, [before + value for before, value in zip(total, more, strict=True)]

        _, total = tf.while_loop(
            lambda option, _: option < structure.mix,
            add,
            (tf.constant(1), of(structure.chains[structure.chain_of[0]], sizes[0])),
            parallel_iterations=1,
            maximum_iterations=structure.mix - 1,
        )
        return [value / float(structure.mix) for value in total]

    def _narrow_chain(self, chain: Chain, size: tf.Tensor, x: tf.Tensor, *flat: tf.Tensor) -> tf.Tensor:
        """A chain with a part of each of its tensors; size: the shapes of all, one after the other."""
        roles = [role for role, ranks in self._ranks.items() for _ in ranks]
        ranks = [rank for mine in self._ranks.values() for rank in mine]
        read = {op.name for op in chain}
        narrow = [
            self._execution.narrow(tensor, shape) if role in read else tensor
            for role, tensor, shape in zip(roles, flat, tf.split(size, ranks), strict=True)
        ]
        return self._chain(chain, x, *narrow)


def _gradient(run: Callable, upstream: tf.Tensor, *at: tf.Tensor) -> list[tf.Tensor]:
    """The gradient of a function by all its arguments, zeros where it does not read one."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(at)
        y = run(*at)
    return tape.gradient(y, list(at), upstream, unconnected_gradients="zero")
