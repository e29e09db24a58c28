"""SGD with momentum over shared weights, of which a step trains a part.

Two meanings of momentum. `lazy`: weights that no sampled network holds rest; they neither move
on with their momentum nor does it decay. That costs what the sampled network costs. `dense`, as
in TuNAS: every weight moves at every step, by momentum alone where it was not sampled.
L2 acts on sampled weights only in both, as in TuNAS.
"""

from mobiledets_tf.compat import tf
from mobiledets_tf.errors import unknown_name
from mobiledets_tf.models.execution import Taken
from mobiledets_tf.models.supernet import Supernet

UPDATES = ("lazy", "dense")
# That of a generated pipeline config: shared weights are trained as networks are alone.
CLIP_NORM = 2.0


class SharedMomentum(tf.Module):
    """momentum <- decay * momentum - rate * gradient; weight <- weight + momentum.

    Args:
      supernet: whose weights it trains; made in the same strategy scope.
      update: `lazy` or `dense`.
      decay: of the momentum.
      clip_norm: gradients of a larger global norm are scaled down to it.
    """

    def __init__(self, supernet: Supernet, update: str, decay: float = 0.9, clip_norm: float = CLIP_NORM):
        super().__init__(name="momentum")
        if update not in UPDATES:
            raise unknown_name("weight update", update, UPDATES)
        self.supernet = supernet
        self.update = update
        self.decay = decay
        self.clip_norm = clip_norm
        self.slots = [
            tf.Variable(tf.zeros_like(bank.rows), name=f"{bank.label}/momentum") for bank in supernet.banks
        ]

    def apply(
        self,
        gradients: list[tf.Tensor],
        taken: list[Taken],
        finite: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tf.Tensor:
        """Updates the shared weights, or nothing where a replica's loss or gradient is not finite.

        Args:
          gradients: of this replica's network, of the rows of each bank.
          taken: what the gradients belong to.
          finite: bool scalar, whether this replica's loss is finite.
          learning_rate: float scalar.

        Returns:
          bool scalar: whether the step was applied; the same on all replicas.
        """
        norm = tf.linalg.global_norm(gradients)
        scale = self.clip_norm / tf.maximum(norm, self.clip_norm)
        finite = tf.logical_and(finite, tf.math.is_finite(norm))
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        if replicas == 1 and self.update == "lazy" and not self.supernet.execution.static:
            act = lambda: self._move_sampled_rows(gradients, taken, scale, learning_rate)  # noqa: E731
            return tf.cond(finite, act, lambda: tf.constant(False))
        return self._move_all(gradients, taken, scale, finite, learning_rate)

    def _move_sampled_rows(self, gradients, taken, scale, learning_rate) -> tf.Tensor:
        rate = learning_rate * scale
        for bank, slot, mine, gradient in zip(
            self.supernet.banks, self.slots, taken, gradients, strict=True
        ):  # fmt: skip
            # ResourceSparseApplyKerasMomentum is the same on one thread, and twice as slow.
            momentum = self.decay * tf.gather(slot, mine.where) - rate * gradient
            slot.scatter_update(tf.IndexedSlices(momentum, mine.where))
            bank.rows.scatter_update(tf.IndexedSlices(mine.rows + momentum, mine.where))
        return tf.constant(True)

    def _move_all(self, gradients, taken, scale, finite, learning_rate) -> tf.Tensor:
        """The same on whole banks: static shapes, and sums over replicas with other networks."""
        banks, spread = self.supernet.banks, self.supernet.execution.spread
        wholes = [
            tf.where(finite, spread(bank, mine, gradient * scale), 0.0)
            for bank, mine, gradient in zip(banks, taken, gradients, strict=True)
        ]
        masks = []
        if self.update == "lazy":
            masks = [
                spread(bank, mine, tf.ones_like(mine.rows)) for bank, mine in zip(banks, taken, strict=True)
            ]
        count, *summed = _sum_over_replicas([tf.cast(finite, tf.float32), *wholes, *masks])
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        all_finite = count == float(replicas)
        for index, (bank, slot) in enumerate(zip(banks, self.slots, strict=True)):
            momentum = self.decay * slot - learning_rate * summed[index] / replicas
            moves = all_finite
            if masks:
                moves = tf.logical_and(summed[len(banks) + index] > 0, all_finite)
            bank.rows.assign_add(tf.where(moves, momentum, 0.0))
            slot.assign(tf.where(moves, momentum, slot))
        return all_finite


def _sum_over_replicas(tensors: list[tf.Tensor]) -> list[tf.Tensor]:
    """Sums of equal-shaped tensors, packed into one: a collective costs more than its numbers."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tensors
    packed = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
    packed = context.all_reduce(tf.distribute.ReduceOp.SUM, packed)
    parts = tf.split(packed, [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
