"""Random numbers that depend only on a seed and a position, for augmentation steps written without seeds.

The Object Detection API's steps use stateful random operations. In a parallel input pipeline their
numbers depend on which image a thread reaches first, a resumed run restarts their sequence, and
`tf.image.sample_distorted_bounding_box`, the core of every random crop, ignores the global seed
altogether. Inside `stateless`, each of these operations becomes its stateless counterpart.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from mobiledets_tf import compat
from mobiledets_tf.compat import gen_image_ops, gen_random_ops, tf

# Distance between the numbers of two positions: more random operations than any pipeline has for one image.
_OPERATIONS = 4096


@contextlib.contextmanager
def stateless(seed: int, position: tf.Tensor) -> Iterator[None]:
    """Inside this context, traced random operations get their numbers from `seed` and `position` alone.

    Args:
      seed: seed of the run.
      position: scalar int64 tensor, such as the place of an image in the endless training order.
    """
    count = 0

    def key() -> tf.Tensor:
        nonlocal count
        count += 1
        place = tf.cast(position, tf.int64) * _OPERATIONS + count
        return tf.stack([tf.constant(seed, tf.int64), place])

    with contextlib.ExitStack() as stack:
        for (module, name), made in _COUNTERPARTS.items():
            stack.enter_context(compat.replaced(module, name, made(key)))
        yield


def _uniform(key: Callable[[], tf.Tensor]) -> Callable:
    def random_uniform(
        shape: Any, dtype: Any, seed: int = 0, seed2: int = 0, name: str | None = None
    ) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, key(), dtype=dtype, name=name)

    return random_uniform


def _uniform_int(key: Callable[[], tf.Tensor]) -> Callable:
    def random_uniform_int(
        shape: Any, minval: Any, maxval: Any, seed: int = 0, seed2: int = 0, name: str | None = None
    ) -> tf.Tensor:
        return tf.random.stateless_uniform(
            shape, key(), minval, maxval, dtype=tf.convert_to_tensor(minval).dtype, name=name
        )

    return random_uniform_int


def _normal(key: Callable[[], tf.Tensor]) -> Callable:
    def random_standard_normal(
        shape: Any, dtype: Any, seed: int = 0, seed2: int = 0, name: str | None = None
    ) -> tf.Tensor:
        return tf.random.stateless_normal(shape, key(), dtype=dtype, name=name)

    return random_standard_normal


def _truncated_normal(key: Callable[[], tf.Tensor]) -> Callable:
    def truncated_normal(
        shape: Any, dtype: Any, seed: int = 0, seed2: int = 0, name: str | None = None
    ) -> tf.Tensor:
        return tf.random.stateless_truncated_normal(shape, key(), dtype=dtype, name=name)

    return truncated_normal


def _shuffle(key: Callable[[], tf.Tensor]) -> Callable:
    def random_shuffle(value: tf.Tensor, seed: int = 0, seed2: int = 0, name: str | None = None) -> tf.Tensor:
        return tf.random.experimental.stateless_shuffle(value, key())

    return random_shuffle


def _bounding_box(key: Callable[[], tf.Tensor]) -> Callable:
    def sample_distorted_bounding_box_v2(
        image_size: tf.Tensor,
        bounding_boxes: tf.Tensor,
        min_object_covered: Any,
        seed: int = 0,
        seed2: int = 0,
        **settings: Any,
    ) -> Any:
        return gen_image_ops.stateless_sample_distorted_bounding_box(
            image_size, bounding_boxes, min_object_covered, key(), **settings
        )

    return sample_distorted_bounding_box_v2


# The generated operations by module and name, beneath every public function that draws random numbers.
_COUNTERPARTS: dict[tuple, Callable[[Callable[[], tf.Tensor]], Callable]] = {
    (gen_random_ops, "random_uniform"): _uniform,
    (gen_random_ops, "random_uniform_int"): _uniform_int,
    (gen_random_ops, "random_standard_normal"): _normal,
    (gen_random_ops, "truncated_normal"): _truncated_normal,
    (gen_random_ops, "random_shuffle"): _shuffle,
    (gen_image_ops, "sample_distorted_bounding_box_v2"): _bounding_box,
}
