"""Computation at an op position of the supernet.

The options of a position are branches of one graph. Most positions of a space have the same branches
and differ only in widths and feature map sizes, which are known at run time. So the largest part of
the graph, the mean of all options, is traced once for all positions with the same structure.
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
    """The operations of a position without their widths; positions of equal structure share graphs.

    Attributes:
      ranks: (role, rank of each of its tensors) pairs.
      chains: the distinct chains of the options, with their widths set to 0.
      chain_of: option -> index into `chains`.
      residual: whether the input is added to the output of a chain.
    """

    ranks: tuple[tuple[str, tuple[int, ...]], ...]
    chains: tuple[Chain, ...]
    chain_of: tuple[int, ...]
    residual: bool

    @classmethod
    def of(cls, plan: LayerPlan, residual: bool, static: bool) -> "Structure":
        """Returns the structure of a position's plan; with `static` it includes the kernel sizes."""
        chains = [tuple(_plain(op, static) for op in chain) for chain in plan.chains]
        distinct = tuple(dict.fromkeys(chains))
        ranks = tuple((role, tuple(len(s) for s in tensor_sizes(op))) for role, op in plan.largest.items())
        return cls(ranks, distinct, tuple(distinct.index(chain) for chain in chains), residual)

    @property
    def mix(self) -> int:
        """Option number that selects the mean of all options."""
        return len(self.chain_of)


def _plain(op: Op, static: bool) -> Op:
    """Returns the operation without the sizes that can be read from its tensors."""
    if isinstance(op, SqueezeExciteOp):
        return dataclasses.replace(op, channels=0, hidden=0)
    told: dict[str, Any] = {"in_channels": 0, "out_channels": 0} | ({} if static else {"kernel_size": 0})
    return dataclasses.replace(op, **told)


class PositionFunction:
    """Runs the chosen option of a position, or the mean of all of them.

    Args:
      structure: structure of the position.
      norm: BN settings.
      execution: execution of the supernet.
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
        """Runs the chosen option.

        Args:
          x: input, float32 [batch, height, width, channels].
          tensors: role -> tensors of the chosen option; for the mix they are large enough for all options.
          option: number of the option, int32 scalar; `structure.mix` selects the mean of all options.
          sizes: shapes of all tensors in each option, int32 [options + 1, sum of ranks].

        Returns:
          float32 [batch, height, width, channels].
        """
        flat = [tensor for role in self._ranks for tensor in tensors[role]]
        if self._execution.static:
            return self._call(self._run_again_for_gradient, x, option, sizes, *flat)
        # This is not a separate graph, because operations after a function call only start when all of its
        # results are available.
        return self._run(x, option, sizes, *flat)

    def _call(self, run: Callable, *arguments: tf.Tensor) -> tf.Tensor:
        """Calls a method as a separate graph, which is traced once for arguments of equal shapes."""
        specs = tuple(self._spec(argument) for argument in arguments)
        key = (run.__name__, specs)
        if key not in self._traced:
            # The function is not inlined, so one copy serves all positions. Each trace has its own Python
            # function, because TensorFlow warns if one function is traced many times.
            self._traced[key] = tf.function(
                lambda *given: run(*given),
                input_signature=specs,
                autograph=False,
                experimental_attributes={"_noinline": True},
            )
        return self._traced[key](*arguments)

    def _spec(self, argument: tf.Tensor) -> tf.TensorSpec:
        # Masked execution needs static shapes; with sliced execution they would only cause more traces.
        shape = argument.shape if self._execution.static else [None] * argument.shape.rank
        return tf.TensorSpec(shape, argument.dtype)

    def _by_role(self, flat: tuple[tf.Tensor, ...]) -> dict[str, Tensors]:
        left = iter(flat)
        return {role: tuple(next(left) for _ in ranks) for role, ranks in self._ranks.items()}

    def _run(self, x: tf.Tensor, option: tf.Tensor, sizes: tf.Tensor, *flat: tf.Tensor) -> tf.Tensor:
        # The mix is a separate graph, so a step without it skips one call instead of all its operations.
        mix = lambda: self._call(self._mix, x, sizes, *flat)  # noqa: E731
        return self._switch(option, lambda chain: self._chain(chain, x, *flat), mix)

    @tf.custom_gradient
    def _run_again_for_gradient(
        self, x: tf.Tensor, option: tf.Tensor, sizes: tf.Tensor, *flat: tf.Tensor
    ) -> tuple[tf.Tensor, Callable]:
        """Does the same as `_run`; its gradient recomputes the option, as in TuNAS ("rematlib").

        XLA rejects the intermediate results that a switch passes to its gradient; here nothing is passed.
        """

        def gradient(upstream: tf.Tensor) -> tuple:
            mix = lambda: self._call(self._mix_gradient, upstream, x, sizes, *flat)  # noqa: E731
            of = lambda chain: _gradient(functools.partial(self._chain, chain), upstream, x, *flat)  # noqa: E731
            in_x, *in_flat = self._switch(option, of, mix)
            return in_x, None, None, *in_flat

        return self._run(x, option, sizes, *flat), gradient

    def _switch(self, option: tf.Tensor, of: Callable[[Chain], Any], *mix: Callable[[], Any]) -> Any:
        """Returns the result of `of` for the option's chain, or that of `mix` for the mix."""
        chains = [functools.partial(of, chain) for chain in self.structure.chains]
        places = tf.constant([*self.structure.chain_of, *[len(chains)] * len(mix)])
        return tf.switch_case(tf.gather(places, option), [*chains, *mix])

    def _chain(self, chain: Chain, x: tf.Tensor, *flat: tf.Tensor) -> tf.Tensor:
        y, tensors = x, self._by_role(flat)
        for op in chain:
            y = shared_op.run(op, self._norm, y, self._execution.of_op(op, tensors[op.name], y.shape[-1]))
        return x + y if self.structure.residual and chain else tf.identity(y)

    @tf.custom_gradient
    def _mix(self, x: tf.Tensor, sizes: tf.Tensor, *flat: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        """Computes the mean of all options, one after the other.

        Its gradient recomputes each option; otherwise the loop would have to keep the intermediate
        results of all options in memory.
        """

        def gradient(upstream: tf.Tensor) -> tuple:
            in_x, *in_flat = self._call(self._mix_gradient, upstream, x, sizes, *flat)
            return in_x, None, *in_flat

        (y,) = self._mean(sizes, lambda chain, size: [self._narrow_chain(chain, size, x, *flat)])
        return y, gradient

    def _mix_gradient(self, upstream: tf.Tensor, x: tf.Tensor, sizes: tf.Tensor, *flat: tf.Tensor) -> Any:
        def of(chain: Chain, size: Any) -> Any:
            return _gradient(functools.partial(self._narrow_chain, chain, size), upstream, x, *flat)

        return self._mean(sizes, of)

    def _mean(self, sizes: tf.Tensor, of: Callable[[Chain, tf.Tensor], list[tf.Tensor]]) -> list[tf.Tensor]:
        """Averages the results of `of(chain, shapes of its tensors)` over all options."""
        structure = self.structure

        def add(option: tf.Tensor, total: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
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
        """Runs a chain with a part of each of its tensors; `size` concatenates the shapes of all parts."""
        roles = [role for role, ranks in self._ranks.items() for _ in ranks]
        ranks = [rank for mine in self._ranks.values() for rank in mine]
        read = {op.name for op in chain}
        narrow = [
            self._execution.narrow(tensor, shape) if role in read else tensor
            for role, tensor, shape in zip(roles, flat, tf.split(size, ranks), strict=True)
        ]
        return self._chain(chain, x, *narrow)


def _gradient(run: Callable, upstream: tf.Tensor, *at: tf.Tensor) -> list[tf.Tensor]:
    """Returns the gradient of a function with respect to all arguments; zeros for an argument it ignores."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(at)
        y = run(*at)
    return tape.gradient(y, list(at), upstream, unconnected_gradients="zero")
