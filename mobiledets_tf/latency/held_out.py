"""How wrong a model is on networks that it was not fitted to."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Figures:
    """Predicted against measured, for the networks inside a band.

    Attributes:
      band: (lowest, highest) measured cost that counts.
      n: networks inside it.
      r2: share of the variance that is explained; NaN below 3 networks.
      spearman: rank correlation; NaN below 3 networks.
      mean_abs_pct_error, worst_abs_pct_error: of predicted against measured, in percent.
    """

    band: tuple[float, float]
    n: int
    r2: float
    spearman: float
    mean_abs_pct_error: float
    worst_abs_pct_error: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: NaN becomes None."""
        fields = dataclasses.asdict(self) | {"band": [round(side, 6) for side in self.band]}
        return {k: None if v != v else round(v, 6) if isinstance(v, float) else v for k, v in fields.items()}

    def line(self, unit: str) -> str:
        """As text."""
        low, high = self.band
        return (
            f"{low:.4g} to {high:.4g} {unit}: n {self.n}, R2 {self.r2:.4f}, Spearman {self.spearman:.4f}, "
            f"error mean {self.mean_abs_pct_error:.2f} %, worst {self.worst_abs_pct_error:.1f} %"
        )


def figures(
    predicted: np.ndarray, measured: np.ndarray, band: tuple[float, float] | None = None
) -> Figures:
    """Errors of predictions, float64 [networks], of networks measured inside `band` (default: all)."""
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


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts) + (counts - 1) / 2)[inverse]
