"""SGD with momentum for shared weights, only some of which are sampled in each step.

There are two kinds of update. `lazy` leaves weights that no sampled network uses unchanged, together
with their momentum; a step costs as much as the sampled network. `dense`, as in TuNAS, moves every
weight at every step; weights that were not sampled move by their momentum alone. With both, L2 acts
on sampled weights only, as in TuNAS.
"""

from mobiledets_tf.compat import tf
from mobiledets_tf.errors import unknown_name
from mobiledets_tf.models.execution import Taken
from mobiledets_tf.models.supernet import Supernet

UPDATES = ("lazy", "dense")
# Same value as in a generated pipeline config, so that shared weights are trained like a single network.
CLIP_NORM = 2.0


class SharedMomentum(tf.Module):
    """SGD with momentum: momentum <- decay * momentum - rate * gradient; weight <- weight + momentum.

    Args:
      supernet: supernet whose weights are trained; created in the same strategy scope.
      update: `lazy` or `dense`.
      decay: decay of the momentum.
      clip_norm: gradients with a larger global norm are scaled down to this norm.
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
        """Updates the shared weights; changes nothing if a replica's loss or gradient is not finite.

        Args:
          gradients: gradients of this replica's network with respect to its rows of each bank.
          taken: for each bank the rows that the gradients belong to.
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

    def _move_sampled_rows(
        self, gradients: list[tf.Tensor], taken: list[tf.Tensor], scale: tf.Tensor, learning_rate: tf.Tensor
    ) -> tf.Tensor:
        rate = learning_rate * scale
        for bank, slot, mine, gradient in zip(self.supernet.banks, self.slots, taken, gradients, strict=True):
            # ResourceSparseApplyKerasMomentum computes the same on a single thread and is twice as slow.
            momentum = self.decay * tf.gather(slot, mine.where) - rate * gradient
            slot.scatter_update(tf.IndexedSlices(momentum, mine.where))
            bank.rows.scatter_update(tf.IndexedSlices(mine.rows + momentum, mine.where))
        return tf.constant(True)

    def _move_all(
        self,
        gradients: list[tf.Tensor],
        taken: list[tf.Tensor],
        scale: tf.Tensor,
        finite: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tf.Tensor:
        """Updates whole banks: shapes are static, and gradients of the replicas' networks can be summed."""
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
    """Sums each tensor over the replicas.

    The tensors are packed into one because the overhead of a collective exceeds the cost of its data.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tensors
    packed = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
    packed = context.all_reduce(tf.distribute.ReduceOp.SUM, packed)
    parts = tf.split(packed, [tensor.shape.num_elements() for tensor in tensors])
    return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
