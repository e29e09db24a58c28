"""Moments and linear fit of an activation's output for a normally distributed input."""

import numpy as np

# The middle of the range in which an activation is nearly linear, for inputs with standard deviation 1.
LINEAR_AT = {"relu6": 3.0, "hard_swish": 5.0}
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
_SHARE = _WEIGHTS / _WEIGHTS.sum()


def _activate(x: np.ndarray, activation: str) -> np.ndarray:
    relu6 = np.clip(x, 0.0, 6.0)
    return relu6 if activation == "relu6" else x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


def through(
    activation: str | None, mean: np.ndarray, std: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes the moments of an activation's output and its best linear fit (Bussgang, 1952).

    Args:
      activation: `relu6`, `hard_swish` or None.
      mean, std: mean and standard deviation of the input, float64 [channels].

    Returns:
      (mean of the output, its standard deviation, slope of the fit), float64 [channels]; the fit is
      mean of the output + slope * (x - mean).
    """
    if activation is None:
        return mean, std, np.ones_like(mean)
    std = np.maximum(std, 1e-9)
    values = _activate(mean[:, None] + std[:, None] * _NODES, activation)
    out = values @ _SHARE
    spread = np.sqrt(np.maximum((values**2) @ _SHARE - out**2, 0.0))
    slope = (values * _NODES) @ _SHARE / std
    return out, spread, slope
