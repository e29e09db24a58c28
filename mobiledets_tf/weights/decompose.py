"""Kernels as products of smaller ones: what turns one kind of layer into another.

All functions are exact where the kernel has the rank that is asked for, and otherwise as near as
any product of that shape (Eckart and Young, 1936; Tucker: each basis is the best one given those
before it, ST-HOSVD, Vannieuwenhoven et al., 2012). Arrays are float64; `error` is the Frobenius
norm of what is left out, in parts of the whole.
"""

import numpy as np


def depthwise_and_pointwise(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Each output channel's kernel as one spatial kernel times one mix of the input channels.

    Args:
      kernel: [k, k, in, out], a full convolution.

    Returns:
      (depthwise kernel [k, k, out, 1], pointwise kernel [1, 1, in, out], error): first the
      pointwise convolution, then the depthwise one.
    """
    side, _, inputs, outputs = kernel.shape
    spatial, mix, error = _rank_one(np.moveaxis(kernel, -1, 0).reshape(outputs, side * side, inputs))
    return spatial.T.reshape(side, side, outputs, 1), mix.T[None, None], error


def depthwise_then_pointwise(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Each input channel's kernel as one spatial kernel times one spread over the output channels.

    Args:
      kernel: [k, k, in, out], a full convolution.

    Returns:
      (depthwise kernel [k, k, in, 1], pointwise kernel [1, 1, in, out], error): first the depthwise
      convolution, then the pointwise one.
    """
    side, _, inputs, outputs = kernel.shape
    spatial, mix, error = _rank_one(np.moveaxis(kernel, 2, 0).reshape(inputs, side * side, outputs))
    return spatial.T.reshape(side, side, inputs, 1), mix[None, None], error


def _rank_one(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The best rank-one factors of each of [n, rows, columns]: [n, rows], [n, columns], error."""
    left, values, right = np.linalg.svd(matrices, full_matrices=False)
    # A spatial kernel keeps the sign of its sum, and both factors get the same share of the norm.
    sign = np.where(left[:, :, 0].sum(axis=1) < 0, -1.0, 1.0)[:, None]
    share = np.sqrt(values[:, :1]) * sign
    return left[:, :, 0] * share, right[:, 0] * share, _left_out(values[:, 1:], values)


def tucker(
    kernel: np.ndarray, in_rank: int, out_rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A convolution between two truncated bases, of its input and of its output channels.

    Args:
      kernel: [k, k, in, out].
      in_rank, out_rank: sizes of the bases; at most `in` and `out`.

    Returns:
      (input basis [1, 1, in, in_rank], core [k, k, in_rank, out_rank], output basis [1, 1, out_rank,
      out], error). Both bases are orthonormal.
    """
    first, kept, lost_in = _basis(kernel, 2, in_rank)
    second, core, lost_out = _basis(kept, 3, out_rank)
    error = float(np.sqrt(lost_in + lost_out) / max(np.linalg.norm(kernel), np.finfo(float).tiny))
    return first[None, None], core, second.T[None, None], error


def _basis(tensor: np.ndarray, axis: int, rank: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(orthonormal basis [size, rank] of an axis, the tensor in it, squared norm that is left out)."""
    unfolded = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    left, values, _ = np.linalg.svd(unfolded, full_matrices=False)
    basis = left[:, :rank]
    within = np.moveaxis(np.tensordot(basis, tensor, (0, axis)), 0, axis)
    return basis, within, float((values[rank:] ** 2).sum())


def _left_out(discarded: np.ndarray, values: np.ndarray) -> float:
    whole = max(float((values**2).sum()), np.finfo(float).tiny)
    return float(np.sqrt((discarded**2).sum() / whole))


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The kernel of two full convolutions one after the other, at least one of which is 1x1.

    Args:
      first: [k, k, in, middle].
      second: [k, k, middle, out].

    Returns:
      [k, k, in, out] with the larger k. Exact, apart from what an offset between the two does at the
      border of an image, where the second one reads padding.
    """
    side = max(first.shape[0], second.shape[0])
    whole = np.einsum("abim,cdmo->acbdio", first, second)
    return whole.reshape(side, side, first.shape[2], second.shape[3])


def compose_depthwise(pointwise: np.ndarray, depthwise: np.ndarray) -> np.ndarray:
    """The full convolution of a pointwise convolution and a depthwise one behind it.

    Args:
      pointwise: [1, 1, in, out].
      depthwise: [k, k, out, 1].

    Returns:
      [k, k, in, out].
    """
    return pointwise * np.swapaxes(depthwise, 2, 3)
