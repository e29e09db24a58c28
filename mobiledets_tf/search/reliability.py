"""Does a search's quality tell networks apart? Split-half reliability over networks of the band."""

import dataclasses
from collections.abc import Sequence

import numpy as np

# Networks that it is measured on.
NETWORKS = 16
_SPLITS = 20
# Below this the order of two networks is next to a guess: of 100 pairs one half of the images orders 65 as
# the other half does.
ENOUGH = 0.3


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How well one half of the held-out images predicts what the other half says.

    Attributes:
      networks: that were measured.
      tau: mean Kendall's tau between the qualities on two halves of the batches, over random halves; None
        where there is one batch only, or all networks are alike.
      spread: standard deviation of the networks' qualities.
      noise: standard deviation that the mean quality of one network has from the choice of images alone,
        what all networks have in common left out.
    """

    networks: int
    tau: float | None
    spread: float
    noise: float

    @property
    def blind(self) -> bool:
        """Whether the quality could not tell networks apart."""
        return self.tau is None or not self.tau >= ENOUGH


def split_half(values: np.ndarray) -> Reliability:
    """The reliability of qualities.

    Args:
      values: float64 [networks, batches]; not a number for batches without boxes.
    """
    values = values[:, np.isfinite(values).all(axis=0)]
    networks, batches = values.shape
    spread = float(values.mean(axis=1).std(ddof=1)) if networks > 1 and batches else 0.0
    if batches < 2 or networks < 3:
        return Reliability(networks, None, spread, 0.0)
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    noise = float(np.sqrt((rest**2).sum() / ((networks - 1) * (batches - 1)) / batches))
    rng = np.random.default_rng(0)
    taus = []
    for _ in range(_SPLITS):
        order = rng.permutation(batches)
        halves = [values[:, part].mean(axis=1) for part in (order[: batches // 2], order[batches // 2 :])]
        taus.append(kendall_tau(*halves))
    known = [tau for tau in taus if tau is not None]
    return Reliability(networks, float(np.mean(known)) if known else None, spread, noise)


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b; None where all values of a side are equal."""
    from scipy import stats

    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(stats.kendalltau(first, second).statistic)
