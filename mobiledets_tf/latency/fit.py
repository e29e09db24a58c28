"""Fits a linear latency model to measured networks and estimates its error on held-out networks.

The aim is a small relative error, so each network is weighted by its time to the power of -1.5. Three
linear methods are compared by cross-validation: ridge regression, the same without the numbers of
operations, and least squares with non-negative coefficients (no operation takes negative time), which
needs fewer samples where that assumption holds. Networks of one space differ little in their numbers of
operations, so scaling these to unit deviation makes noise of them: on 166 networks simulated for Hexagon,
ridge regression had a mean held-out error of 5.0 % with them and 4.5 % without.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf.errors import InputError
from mobiledets_tf.latency.features import OpSums, op_sums
from mobiledets_tf.latency.held_out import Figures, figures
from mobiledets_tf.latency.model import LatencyModel
from mobiledets_tf.search_space import SearchSpace, encode

# With fewer samples the error cannot be estimated: 50 are five folds of ten networks.
MIN_SAMPLES = 50
FOLDS = 5
# Cost range of a search, as multiples of the costs of the published networks that the space contains.
BAND = (0.7, 1.5)
_WEIGHT_POWER = 1.5
_RIDGE_ALPHAS = np.logspace(-4, 4, 33)
_NON_NEGATIVE_ALPHA = 0.05

# (features, costs) -> (intercept, coefficients).
Method = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model and its held-out errors.

    Attributes:
      model: the fitted model, without `info`.
      method: name of the method with the smaller held-out error.
      measured, predicted: float64 [networks], in ms; each prediction is by a model that was fitted
        without that network.
      whole, inside: held-out errors of all networks, and of those inside the band.
      published: held-out errors of the networks around each published network of the space, by its name.
      curve: learning curve, (number of networks fitted to, mean held-out error in percent), ascending.
      compared: mean held-out error of each method by its name, in percent.
    """

    model: LatencyModel
    method: str
    measured: np.ndarray
    predicted: np.ndarray
    whole: Figures
    inside: Figures
    published: dict[str, Figures]
    curve: list[tuple[int, float]]
    compared: dict[str, float]


def fit(
    header: dict,
    space: SearchSpace,
    decisions: np.ndarray,
    measured: np.ndarray,
    band: tuple[float, float] | None = None,
) -> Fit:
    """Fits a latency model to measured networks.

    Args:
      header: header of the samples (`samples.collect`).
      space: search space that the networks were drawn from.
      decisions: int [networks, decisions].
      measured: float64 [networks], in ms.
      band: (lowest, highest) measured time in ms of the networks that `Fit.inside` evaluates; default:
        a range around the published networks of the space.

    Raises:
      InputError: there are too few networks, or none inside the band.
    """
    if len(measured) < MIN_SAMPLES:
        raise InputError(f"{len(measured)} measured networks are too few for a fit; needed: {MIN_SAMPLES}")
    size = tuple(header["image_size"])
    features = op_sums(space, size, header["num_classes"], header["head"])
    matrix = features.matrix(decisions)
    methods = METHODS | {"ridge_without_counts": _without_counts(_ridge, features.names)}
    held_out = {name: cross_validated(method, matrix, measured) for name, method in methods.items()}
    compared = {name: figures(p, measured).mean_abs_pct_error for name, p in held_out.items()}
    best = min(compared, key=lambda name: compared[name])
    intercept, coefficients = methods[best](matrix, measured)
    model = LatencyModel(
        device=header["device"],
        kind=header["kind"],
        unit="ms",
        space=space,
        image_size=size,
        num_classes=header["num_classes"],
        features=OpSums.name,
        intercept=intercept,
        coefficients=coefficients,
        variant=header["variant"],
        head=header["head"],
    )
    predicted = held_out[best]
    costs = {name: model.predict_one(network) for name, network in published_in(space).items()}
    if band is None:
        band = (BAND[0] * min(costs.values()), BAND[1] * max(costs.values()))
    inside = figures(predicted, measured, band)
    if not inside.n:
        raise InputError(
            f"no measured network takes {band[0]:.4g} to {band[1]:.4g} ms; the networks take "
            f"{measured.min():.4g} to {measured.max():.4g} ms"
        )
    around = {
        name: figures(predicted, measured, (BAND[0] * cost, BAND[1] * cost)) for name, cost in costs.items()
    }
    curve = learning_curve(methods[best], matrix, measured)
    return Fit(
        model, best, measured, predicted, figures(predicted, measured), inside, around, curve, compared
    )


def published_in(space: SearchSpace) -> dict[str, np.ndarray]:
    """Returns the decisions of the published networks that a search space contains, by name.

    Their activation, squeeze-excite ratio and extra levels are replaced by those of the space. If the
    space contains none, the only entry is `middle`, the middle option of every decision.
    """
    found = {}
    for name in architectures.PUBLISHED:
        network = dataclasses.replace(
            architectures.load(name),
            activation=space.activation,
            se_ratio=space.se_ratio,
            extra_filters=space.extra_filters,
        )
        try:
            found[name] = encode(space, network)
        except InputError:
            continue
    # A scaled or smaller space may contain no published network.
    return found or {"middle": np.array([len(node.choices) // 2 for _, node in space.decisions], np.int32)}


def cross_validated(method: Method, matrix: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Predicts each network with a model fitted to the other folds.

    Args:
      method: the method to fit with.
      matrix: float64 [networks, features].
      measured: float64 [networks].

    Returns:
      float64 [networks].
    """
    fold = np.random.default_rng(0).permutation(len(measured)) % FOLDS
    predicted = np.empty(len(measured))
    for number in range(FOLDS):
        rest = fold != number
        intercept, coefficients = method(matrix[rest], measured[rest])
        predicted[~rest] = intercept + matrix[~rest] @ coefficients
    return predicted


def learning_curve(method: Method, matrix: np.ndarray, measured: np.ndarray) -> list[tuple[int, float]]:
    """Returns (number of networks fitted to, mean held-out error in percent) for growing samples.

    The samples are a quarter, a half, three quarters and all of the networks. Those of fewer than
    `MIN_SAMPLES` are omitted.
    """
    order = np.random.default_rng(1).permutation(len(measured))
    counts = [len(measured) * part // 4 for part in (1, 2, 3, 4)]
    points = []
    for count in counts:
        if count >= MIN_SAMPLES:
            chosen = order[:count]
            predicted = cross_validated(method, matrix[chosen], measured[chosen])
            error = figures(predicted, measured[chosen]).mean_abs_pct_error
            points.append((count - count // FOLDS, error))
    return points


def _scaled(fitted: Callable) -> Method:
    """Wraps a method to work on scaled data and with weights.

    The method receives features of unit standard deviation, costs of mean 1 and the weights of the
    networks. Its result is scaled back.
    """

    @functools.wraps(fitted)
    def method(matrix: np.ndarray, measured: np.ndarray) -> tuple[float, np.ndarray]:
        mean = measured.mean()
        deviation = matrix.std(axis=0)
        # The deviation of a feature that is equal in all networks is zero except for rounding errors.
        used = deviation > 1e-9 * np.abs(matrix).max(axis=0)
        scaled = matrix[:, used] / deviation[used]
        weights = (mean / measured) ** _WEIGHT_POWER
        intercept, found = fitted(scaled, measured / mean, weights)
        coefficients = np.zeros(matrix.shape[1])
        coefficients[used] = found / deviation[used] * mean
        return float(intercept * mean), coefficients

    return method


@_scaled
def _ridge(matrix: np.ndarray, costs: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    from sklearn.linear_model import RidgeCV

    centre = matrix.mean(axis=0)
    model = RidgeCV(_RIDGE_ALPHAS).fit(matrix - centre, costs, sample_weight=weights)
    return model.intercept_ - centre @ model.coef_, model.coef_


@_scaled
def _non_negative(matrix: np.ndarray, costs: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    from scipy.optimize import nnls

    count = matrix.shape[1]
    root = np.sqrt(weights)[:, None]
    # The additional rows are a ridge penalty on all coefficients but the intercept.
    penalty = np.eye(count) * _NON_NEGATIVE_ALPHA**0.5
    design = np.block([[root, matrix * root], [np.zeros((count, 1)), penalty]])
    target = np.concatenate([costs * root[:, 0], np.zeros(count)])
    found, _ = nnls(design, target, maxiter=30 * count)
    return found[0], found[1:]


def _without_counts(fitted: Method, names: Sequence[str]) -> Method:
    """Returns a method that ignores the numbers of operations; their coefficients are 0."""
    used = np.array([not name.endswith(".count") for name in names])

    def method(matrix: np.ndarray, measured: np.ndarray) -> tuple[float, np.ndarray]:
        intercept, found = fitted(matrix[:, used], measured)
        coefficients = np.zeros(len(used))
        coefficients[used] = found
        return intercept, coefficients

    return method


METHODS: dict[str, Method] = {"non_negative": _non_negative, "ridge": _ridge}
