"""Split-half reliability: whether the quality measured in a search distinguishes networks of the band."""

import dataclasses
from collections.abc import Sequence

import numpy as np

# Number of networks on which the reliability is measured.
NETWORKS = 16
_SPLITS = 20
# Below this tau the order of two networks is little better than a guess: the two halves of the images agree
# on the order of only 65 out of 100 pairs.
ENOUGH = 0.3


@dataclasses.dataclass(frozen=True)
class Reliability:
    """How well the ranking on one half of the held-out images agrees with that on the other half.

    Attributes:
      networks: number of networks that were measured.
      tau: mean Kendall's tau between the qualities on two halves of the batches, over random halves; None
        if there is only one batch, fewer than three networks, or all networks have equal quality.
      spread: standard deviation of the networks' qualities.
      noise: standard deviation of a network's mean quality that is due to the choice of images, without
        the part that all networks have in common.
    """

    networks: int
    tau: float | None
    spread: float
    noise: float

    @property
    def blind(self) -> bool:
        """Whether the quality could not distinguish networks."""
        return self.tau is None or not self.tau >= ENOUGH


def split_half(values: np.ndarray) -> Reliability:
    """Computes the split-half reliability of measured qualities.

    Args:
      values: quality of each network on each batch, float64 [networks, batches]; NaN for batches
        without boxes.
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


def kendall_tau(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float | None:
    """Returns Kendall's tau-b; None if all values on one side are equal."""
    from scipy import stats

    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(stats.kendalltau(first, second).statistic)
