"""Decomposition of kernels into products of smaller ones, and their composition.

The decompositions are exact if the kernel has the requested rank, and otherwise the best approximation
by a product of that shape (Eckart and Young, 1936; for Tucker, each basis is the best one given those
before it, ST-HOSVD, Vannieuwenhoven et al., 2012). Arrays are float64; `error` is the Frobenius norm
of the residual as a fraction of the kernel's norm.
"""

import numpy as np


def depthwise_and_pointwise(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Factorises each output channel's kernel into a spatial kernel and a mix of the input channels.

    Args:
      kernel: kernel of a full convolution, [k, k, in, out].

    Returns:
      (depthwise kernel [k, k, out, 1], pointwise kernel [1, 1, in, out], error); the pointwise
      convolution comes first, then the depthwise one.
    """
    side, _, inputs, outputs = kernel.shape
    spatial, mix, error = _rank_one(np.moveaxis(kernel, -1, 0).reshape(outputs, side * side, inputs))
    return spatial.T.reshape(side, side, outputs, 1), mix.T[None, None], error


def depthwise_then_pointwise(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Factorises each input channel's kernel into a spatial kernel and weights of the output channels.

    Args:
      kernel: kernel of a full convolution, [k, k, in, out].

    Returns:
      (depthwise kernel [k, k, in, 1], pointwise kernel [1, 1, in, out], error); the depthwise
      convolution comes first, then the pointwise one.
    """
    side, _, inputs, outputs = kernel.shape
    spatial, mix, error = _rank_one(np.moveaxis(kernel, 2, 0).reshape(inputs, side * side, outputs))
    return spatial.T.reshape(side, side, inputs, 1), mix[None, None], error


def _rank_one(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns the best rank-one factors of matrices [n, rows, columns]: [n, rows], [n, columns], error."""
    left, values, right = np.linalg.svd(matrices, full_matrices=False)
    # The sign is chosen so that the sum of the first factor is not negative; both factors get equal norms.
    sign = np.where(left[:, :, 0].sum(axis=1) < 0, -1.0, 1.0)[:, None]
    share = np.sqrt(values[:, :1]) * sign
    return left[:, :, 0] * share, right[:, 0] * share, _left_out(values[:, 1:], values)


def tucker(
    kernel: np.ndarray, in_rank: int, out_rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Factorises a kernel into bases of its input and output channels and a core convolution between them.

    Args:
      kernel: kernel of a full convolution, [k, k, in, out].
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
    """Returns (orthonormal basis [size, rank] of an axis, tensor in this basis, squared residual norm)."""
    unfolded = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    left, values, _ = np.linalg.svd(unfolded, full_matrices=False)
    basis = left[:, :rank]
    within = np.moveaxis(np.tensordot(basis, tensor, (0, axis)), 0, axis)
    return basis, within, float((values[rank:] ** 2).sum())


def _left_out(discarded: np.ndarray, values: np.ndarray) -> float:
    whole = max(float((values**2).sum()), np.finfo(float).tiny)
    return float(np.sqrt((discarded**2).sum() / whole))


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Composes two consecutive full convolutions, at least one of which is 1x1, into one kernel.

    Args:
      first: kernel of the first convolution, [k, k, in, middle].
      second: kernel of the second convolution, [k, k, middle, out].

    Returns:
      [k, k, in, out] with the larger k. It is exact, except for the effect of an offset between the two
      at the border of an image, where the second convolution reads padding.
    """
    side = max(first.shape[0], second.shape[0])
    whole = np.einsum("abim,cdmo->acbdio", first, second)
    return whole.reshape(side, side, first.shape[2], second.shape[3])


def compose_depthwise(pointwise: np.ndarray, depthwise: np.ndarray) -> np.ndarray:
    """Composes a pointwise convolution and the depthwise one after it into one full kernel.

    Args:
      pointwise: kernel of the pointwise convolution, [1, 1, in, out].
      depthwise: kernel of the depthwise convolution, [k, k, out, 1].

    Returns:
      [k, k, in, out].
    """
    return pointwise * np.swapaxes(depthwise, 2, 3)
