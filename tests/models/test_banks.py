"""Where a network's part of a shared tensor lies."""

import itertools

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.models.banks import channel_mask, corner


@pytest.mark.parametrize(
    "shape", [(5, 5, 4, 1), (5, 5, 3, 4), (3, 3, 1, 4), (1, 1, 4, 3), (2, 4), (4,), (1,)]
)
def test_the_mask_is_one_where_the_part_is(shape):
    kernel_sides = 2 if len(shape) > 2 else 0
    sides = [
        range(1, side + 1, 2) if axis < kernel_sides else range(1, side + 1)
        for axis, side in enumerate(shape)
    ]
    for size in [(0,) * len(shape), *itertools.product(*sides)]:
        part = tf.constant(size, tf.int32)
        begin = corner(shape, part).numpy()
        expected = np.zeros(shape, np.float32)
        expected[tuple(slice(b, b + s) for b, s in zip(begin, size, strict=True))] = 1
        mask = np.broadcast_to(channel_mask(shape, part), shape)
        np.testing.assert_array_equal(mask, expected, err_msg=str(size))
        for axis, (b, s, whole) in enumerate(zip(begin, size, shape, strict=True)):
            assert b == ((whole - s) // 2 if axis < kernel_sides else 0)
