"""Errors of a latency model on networks that it was not fitted to."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Figures:
    """Agreement of predicted with measured costs for the networks inside a band.

    Attributes:
      band: (lowest, highest) measured cost of the networks that are included.
      n: number of networks inside the band.
      r2: fraction of the variance that is explained; NaN for fewer than 3 networks.
      spearman: Spearman's rank correlation; NaN for fewer than 3 networks.
      mean_abs_pct_error, worst_abs_pct_error: mean and largest absolute error as percentages of the
        measured cost.
    """

    band: tuple[float, float]
    n: int
    r2: float
    spearman: float
    mean_abs_pct_error: float
    worst_abs_pct_error: float

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-ready dictionary in which NaN becomes None."""
        fields = dataclasses.asdict(self) | {"band": [round(side, 6) for side in self.band]}
        return {k: None if v != v else round(v, 6) if isinstance(v, float) else v for k, v in fields.items()}

    def line(self, unit: str) -> str:
        """Returns the figures as one line of text, with the costs in `unit`."""
        low, high = self.band
        return (
            f"{low:.4g} to {high:.4g} {unit}: n {self.n}, R2 {self.r2:.4f}, Spearman {self.spearman:.4f}, "
            f"mean error {self.mean_abs_pct_error:.2f} %, worst {self.worst_abs_pct_error:.1f} %"
        )


def figures(predicted: np.ndarray, measured: np.ndarray, band: tuple[float, float] | None = None) -> Figures:
    """Compares predicted with measured costs.

    Args:
      predicted, measured: float64 [networks].
      band: (lowest, highest) measured cost of the networks to include; default: all networks.
    """
    band = band or (float(measured.min()), float(measured.max()))
    inside = (measured >= band[0]) & (measured <= band[1])
    p, m = predicted[inside], measured[inside]
    nan = float("nan")
    r2 = spearman = nan
    if len(m) >= 3 and m.std() > 0 and p.std() > 0:
        r2 = float(1 - ((p - m) ** 2).sum() / ((m - m.mean()) ** 2).sum())
        spearman = float(np.corrcoef(_ranks(p), _ranks(m))[0, 1])
    errors = 100 * np.abs(p / m - 1)
    mean, worst = (float(errors.mean()), float(errors.max())) if len(m) else (nan, nan)
    return Figures(band, len(m), r2, spearman, mean, worst)


def allowed_error_pct(held_out: dict[str, Any]) -> float:
    """Returns the mean error that a check allows, in percent: twice the held-out error, but at least 2.

    Args:
      held_out: the entry `held_out` of a model's file; may be empty.
    """
    return max(2.0, 2 * float(held_out.get("mean_abs_pct_error") or 1.0))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks counted from 0, where equal values have their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts) + (counts - 1) / 2)[inverse]
