"""A linear latency model and its file, `latency_model.json`: coefficients only."""

import dataclasses
import math
import os
from typing import Any

import numpy as np

from mobiledets_tf.errors import InputError, nearest
from mobiledets_tf.files import read_json, write_artefact
from mobiledets_tf.latency.features import FEATURES
from mobiledets_tf.search_space import SearchSpace, check_decisions, get_space

SCHEMA_VERSION = 1
KINDS = ("exact", "measured", "simulated", "compiled", "modelled")


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyModel:
    """cost = intercept + sum of the coefficients of the active features.

    Attributes:
      device: name of what was measured; `madds` counts multiply-adds.
      kind: one of `KINDS`.
      unit: of the cost, for instance `madds` or `ms`.
      space: the space it is valid for.
      image_size: (height, width) in pixels.
      num_classes: of the detector it was made with.
      features: name of the feature set.
      intercept: in `unit`.
      coefficients: float64 [features], in `unit`.
    """

    device: str
    kind: str
    unit: str
    space: SearchSpace
    image_size: tuple[int, int]
    num_classes: int
    features: str
    intercept: float
    coefficients: np.ndarray

    def __post_init__(self):
        extractor = FEATURES[self.features](self.space)
        if self.coefficients.shape != (extractor.count,):
            raise InputError(
                f"latency model of {self.device!r} has {self.coefficients.size} coefficients; features "
                f"{self.features!r} of space {self.space.name!r} need {extractor.count}"
            )
        object.__setattr__(self, "_extractor", extractor)

    def predict(self, decisions: np.ndarray) -> np.ndarray:
        """Costs of networks.

        Args:
          decisions: int [networks, decisions], valid for `space`.

        Returns:
          float64 [networks] in `unit`.
        """
        active = self._extractor.active(np.asarray(decisions))
        return self.intercept + self.coefficients[active].sum(axis=1)

    def predict_one(self, decisions: np.ndarray) -> float:
        """Cost of one checked decision vector."""
        check_decisions(self.space, decisions)
        return float(self.predict(np.asarray(decisions)[None])[0])

    def require_space(self, space: SearchSpace) -> None:
        """Raises InputError, with both values, unless the model was made for `space`."""
        for field in ("name", "hash"):
            ours, theirs = getattr(self.space, field), getattr(space, field)
            if ours != theirs:
                raise InputError(
                    f"latency model of device {self.device!r} is for search space {field} {ours!r} "
                    f"{self.space.options()}; the search has {theirs!r} {space.options()}"
                )


def save(model: LatencyModel, path: str | os.PathLike) -> None:
    """Writes the model, atomically."""
    write_artefact(
        path,
        {
            "schema_version": SCHEMA_VERSION,
            "device": model.device,
            "kind": model.kind,
            "unit": model.unit,
            "search_space": model.space.options() | {"hash": model.space.hash},
            "image_size": list(model.image_size),
            "num_classes": model.num_classes,
            "features": model.features,
            "intercept": model.intercept,
            "coefficients": model.coefficients.tolist(),
        },
    )


def load(path: str | os.PathLike) -> LatencyModel:
    """Reads a model.

    Raises:
      InputError: not a latency model, another schema version, a space that this version does
        not have or whose content changed (both hashes are named), or broken numbers.
    """
    where = f"latency model {os.fspath(path)!r}"
    data = read_json(path, "latency model")
    try:
        return _parse(data)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: missing or malformed entry ({type(error).__name__}: {error})") from error


def _parse(data: Any) -> LatencyModel:
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        given = data.get("schema_version") if isinstance(data, dict) else data
        raise InputError(f"schema_version is {str(given)[:40]!r}; allowed: {SCHEMA_VERSION}")
    if data["kind"] not in KINDS:
        raise InputError(
            f"kind is {data['kind']!r}{nearest(str(data['kind']), KINDS)}; allowed: {', '.join(KINDS)}"
        )
    if data["features"] not in FEATURES:
        raise InputError(f"features are {data['features']!r}; allowed: {', '.join(FEATURES)}")
    space = _space(dict(data["search_space"]))
    coefficients = np.array(data["coefficients"], np.float64)
    intercept = float(data["intercept"])
    if coefficients.ndim != 1 or not np.isfinite(coefficients).all() or not math.isfinite(intercept):
        raise InputError("intercept and coefficients must be finite numbers")
    height, width = (int(side) for side in data["image_size"])
    return LatencyModel(
        device=str(data["device"]),
        kind=data["kind"],
        unit=str(data["unit"]),
        space=space,
        image_size=(height, width),
        num_classes=int(data["num_classes"]),
        features=data["features"],
        intercept=intercept,
        coefficients=coefficients,
    )


def _space(options: dict[str, Any]) -> SearchSpace:
    expected = options.pop("hash")
    kernels = tuple(options.pop("kernel_sizes"))
    space = get_space(kernel_sizes=kernels, **options)
    if space.hash != expected:
        raise InputError(
            f"search space {space.name!r} has hash {expected!r} in the file and {space.hash!r} here"
        )
    return space
