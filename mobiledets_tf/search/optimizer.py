"""SGD with momentum over shared weights, of which a step trains a part.

Two meanings of momentum. `lazy`: weights that no sampled network holds rest; they neither move
on with their momentum nor does it decay. That costs what the sampled network costs. `dense`, as
in TuNAS: every weight moves at every step, by momentum alone where it was not sampled.
L2 acts on sampled weights only in both, as in TuNAS.
"""

from mobiledets_tf.compat import tf
from mobiledets_tf.errors import unknown_name
from mobiledets_tf.models.supernet import NetworkSizes, NetworkWeights, Supernet

UPDATES = ("lazy", "dense")


class SharedMomentum(tf.Module):
    """momentum <- decay * momentum - rate * gradient; weight <- weight + momentum.

    Args:
      supernet: whose weights it trains; made in the same strategy scope.
      update: `lazy` or `dense`.
      decay: of the momentum.
      clip_norm: gradients of a larger global norm are scaled down to it.
    """

    def __init__(self, supernet: Supernet, update: str, decay: float = 0.9, clip_norm: float = 10.0):
        super().__init__(name="momentum")
        if update not in UPDATES:
            raise unknown_name("weight update", update, UPDATES)
        self.supernet = supernet
        self.update = update
        self.decay = decay
        self.clip_norm = clip_norm
        self.slots = {
            shared.label: tf.Variable(tf.zeros_like(shared.rows), name=f"{shared.label}/momentum")
            for op in supernet.ops.values()
            for shared in op.tensors
        }

    def apply(
        self,
        gradients: NetworkWeights,
        weights: NetworkWeights,
        sizes: NetworkSizes,
        finite: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> tf.Tensor:
        """Updates the shared weights, or nothing where a replica's loss or gradient is not finite.

        Args:
          gradients: of this replica's network, by operation.
          weights, sizes: what the gradients belong to.
          finite: bool scalar, whether this replica's loss is finite.
          learning_rate: float scalar.

        Returns:
          bool scalar: whether the step was applied; the same on all replicas.
        """
        norm = tf.linalg.global_norm([g for tensors in gradients.values() for g in tensors])
        scale = self.clip_norm / tf.maximum(norm, self.clip_norm)
        finite = tf.logical_and(finite, tf.math.is_finite(norm))
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        if replicas == 1 and self.update == "lazy" and not self.supernet.execution.static:
            act = lambda: self._move_sampled_rows(gradients, weights, sizes, scale, learning_rate)  # noqa: E731
            return tf.cond(finite, act, lambda: tf.constant(False))
        return self._move_all(gradients, sizes, scale, finite, learning_rate)

    def _each(self, gradients: NetworkWeights, sizes: NetworkSizes):
        for name, tensors in gradients.items():
            yield from zip(self.supernet.ops[name].tensors, tensors, sizes[name], strict=True)

    def _move_sampled_rows(self, gradients, weights, sizes, scale, learning_rate) -> tf.Tensor:
        held = [tensor for name in gradients for tensor in weights[name]]
        rate = learning_rate * scale
        for (shared, gradient, size), weight in zip(self._each(gradients, sizes), held, strict=True):
            slot, numbers = self.slots[shared.label], shared.row_numbers(size)
            momentum = self.decay * tf.gather(slot, numbers) - rate * tf.reshape(gradient, [-1, shared.row])
            slot.scatter_update(tf.IndexedSlices(momentum, numbers))
            shared.rows.scatter_update(
                tf.IndexedSlices(tf.reshape(weight, [-1, shared.row]) + momentum, numbers)
            )
        return tf.constant(True)

    def _move_all(self, gradients, sizes, scale, finite, learning_rate) -> tf.Tensor:
        """The same on whole tensors: static shapes, and sums over replicas with other networks."""
        places = list(self._each(gradients, sizes))
        wholes = [
            tf.where(finite, self.supernet.execution.gradient(shared, gradient * scale, size), 0.0)
            for shared, gradient, size in places
        ]
        masks = []
        if self.update == "lazy":
            masks = [
                tf.reshape(tf.broadcast_to(shared.mask(size), shared.shape), shared.rows.shape)
                for shared, _, size in places
            ]
        count, *summed = _sum_over_replicas([tf.cast(finite, tf.float32), *wholes, *masks])
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        all_finite = count == float(replicas)
        for index, (shared, _, _) in enumerate(places):
            weight, slot = shared.rows, self.slots[shared.label]
            momentum = self.decay * slot - learning_rate * summed[index] / replicas
            moves = all_finite
            if masks:
                moves = tf.logical_and(summed[len(places) + index] > 0, all_finite)
            weight.assign_add(tf.where(moves, momentum, 0.0))
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
