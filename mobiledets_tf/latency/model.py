"""Linear latency models and their file format, `latency_model.json`.

The file contains coefficients and metadata as plain JSON, together with a hash of its content.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mobiledets_tf.errors import InputError, nearest
from mobiledets_tf.files import check_version, read_json, write_artefact
from mobiledets_tf.latency import shipped
from mobiledets_tf.latency.features import FEATURES, LayerOneHot, OpSums, op_sums
from mobiledets_tf.latency.kinds import KINDS
from mobiledets_tf.search_space import SearchSpace, check_decisions, stored_space

SCHEMA_VERSION = 2
HEADS = ("ssdlite", "none")


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyModel:
    """A linear model: cost = intercept + sum over all features of coefficient times feature.

    Attributes:
      device: name of the device; `madds` counts multiply-adds.
      kind: kind of the cost, one of `KINDS`.
      unit: unit of the cost, for instance `madds` or `ms`.
      space: search space that the model is valid for.
      image_size: (height, width) in pixels.
      num_classes: number of classes of the measured detectors, without the background.
      features: name of the feature set, one of `FEATURES`.
      intercept: cost that all networks have in common, in `unit`.
      coefficients: float64 [features], in `unit` per unit of the feature.
      variant: the chip that the device stands for, or ''.
      head: `ssdlite`, or `none` for the backbone alone.
      info: further entries of the file, JSON-ready: versions, command, held_out, ...
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
    variant: str = ""
    head: str = "ssdlite"
    info: dict[str, Any] = dataclasses.field(default_factory=dict)

    _one_hot: LayerOneHot = dataclasses.field(init=False, repr=False)
    _table: np.ndarray = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        one_hot = LayerOneHot(self.space)
        extractor = self._op_sums() if self.features == OpSums.name else None
        count = len(extractor.names) if extractor else one_hot.count
        if self.coefficients.shape != (count,):
            raise InputError(
                f"latency model of {self.device!r} has {self.coefficients.size} coefficients; features "
                f"{self.features!r} of space {self.space.name!r} need {count}"
            )
        # Both feature sets add up over layers, so a cost is a sum of entries of one table over the active
        # one-hot features.
        table = extractor.rows @ self.coefficients if extractor else self.coefficients
        object.__setattr__(self, "_one_hot", one_hot)
        object.__setattr__(self, "_table", table)

    @property
    def title(self) -> str:
        """Device and variant, followed by the kind of the cost in brackets."""
        return f"{self.device}{f' {self.variant}' if self.variant else ''} ({self.kind})"

    def predict(self, decisions: np.ndarray) -> np.ndarray:
        """Predicts the costs of networks.

        Args:
          decisions: int [networks, decisions], valid for `space`; this is not checked.

        Returns:
          float64 [networks] in `unit`.
        """
        return self.intercept + self._one_hot.sum(self._table, np.asarray(decisions))

    def predict_one(self, decisions: Sequence[int] | np.ndarray) -> float:
        """Checks one decision vector and predicts its cost in `unit`.

        Raises:
          InputError: the decisions are not valid for `space`.
        """
        check_decisions(self.space, decisions)
        return float(self.predict(np.asarray(decisions)[None])[0])

    def parts(self, decisions: np.ndarray) -> dict[str, float]:
        """Predicts the cost of each part of one network; the costs add up to the prediction for the network.

        Args:
          decisions: int [decisions].

        Returns:
          A mapping from `stem`, `block<b>_layer<l>`, `head C4`, `head C5` and `constant` (the intercept) to
          the cost in `unit`.
        """
        active = self._one_hot.active(np.asarray(decisions)[None])[0]
        names = ("stem", *(p.name for p in self._one_hot.positions), "head C4", "head C5")
        costs = dict(zip(names, self._table[active].tolist(), strict=True))
        return costs | {"constant": self.intercept}

    def tables(self) -> tuple[np.ndarray, list[np.ndarray], dict[int, np.ndarray]]:
        """Returns tables of the terms whose sum, together with `intercept`, is the cost; all in `unit`.

        Returns:
          A tuple of the stem's costs, float64 [stem widths];
          the costs of each op position, float64 [input widths, options, output widths];
          and the costs of the layers that read C4 and C5, as a mapping from the index of the decision
          on its width to float64 [widths].
        """
        one_hot = self._one_hot
        stem, *rest = np.split(self._table, one_hot.offsets[1:-1])
        count = len(one_hot.positions)
        layers = [part.reshape(p.shape) for part, p in zip(rest[:count], one_hot.positions, strict=True)]
        return stem, layers, dict(zip(one_hot.endpoints, rest[count:], strict=True))

    def require_space(self, space: SearchSpace) -> None:
        """Raises InputError, which names both spaces, unless the model was made for `space`."""
        for field in ("name", "hash"):
            ours, theirs = getattr(self.space, field), getattr(space, field)
            if ours != theirs:
                raise InputError(
                    f"latency model of device {self.device!r} is for search space {field} {ours!r} "
                    f"{self.space.options()}; the search has {theirs!r} {space.options()}"
                )

    def _op_sums(self) -> OpSums:
        return op_sums(self.space, self.image_size, self.num_classes, self.head)

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of the model's file, without the hash."""
        values = [float(value) for value in self.coefficients]
        named = self.features == OpSums.name
        return {
            "schema_version": SCHEMA_VERSION,
            "device": self.device,
            "variant": self.variant,
            "kind": self.kind,
            "unit": self.unit,
            "search_space": self.space.options() | {"hash": self.space.hash},
            "image_size": list(self.image_size),
            "num_classes": self.num_classes,
            "head": self.head,
            **self.info,
            "features": self.features,
            "intercept": float(self.intercept),
            "coefficients": dict(zip(self._op_sums().names, values, strict=True)) if named else values,
        }


def save(model: LatencyModel, path: str | os.PathLike) -> None:
    """Writes a model with the hash of its content, atomically."""
    data = model.to_dict()
    write_artefact(path, data | {"content_hash": _hash(data)})


def _hash(data: dict[str, Any]) -> str:
    """Returns the first 16 hex digits of SHA-256 over all entries but `content_hash` and `written_by`."""
    rest = {key: value for key, value in data.items() if key not in ("content_hash", "written_by")}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(path: str | os.PathLike) -> LatencyModel:
    """Loads a latency model from a file, or a shipped one by its name.

    Example:
      ```python
      from mobiledets_tf import architecture, latency, search_space

      model = latency.load("hexagon_ibn_fused_tucker")
      decisions = search_space.encode(model.space, architecture.load("edgetpu"))
      print(model.predict_one(decisions), model.unit)
      ```

    Raises:
      InputError: the file is not a latency model, has another schema version, is for a search space
        that this version does not have or whose content has changed (both hashes are named), contains
        invalid numbers, or was edited after it was written.
    """
    path = shipped.find(path)
    where = f"latency model {os.fspath(path)!r}"
    data = read_json(path, "latency model")
    try:
        return _parse(data)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: missing or malformed entry ({type(error).__name__}: {error})") from error


_KEYS = frozenset(
    {
        "schema_version",
        "device",
        "variant",
        "kind",
        "unit",
        "search_space",
        "image_size",
        "num_classes",
        "head",
        "features",
        "intercept",
        "coefficients",
        "content_hash",
        "written_by",
    }
)


def _parse(data: Any) -> LatencyModel:
    check_version(data, SCHEMA_VERSION, oldest=2)
    for key, allowed in (("kind", KINDS), ("features", FEATURES), ("head", HEADS)):
        if data[key] not in allowed:
            raise InputError(
                f"{key} is {data[key]!r}{nearest(str(data[key]), allowed)}; allowed: {', '.join(allowed)}"
            )
    height, width = (int(side) for side in data["image_size"])
    space, classes = stored_space(data["search_space"]), int(data["num_classes"])
    names = None
    if data["features"] == OpSums.name:
        names = op_sums(space, (height, width), classes, data["head"]).names
    model = LatencyModel(
        device=str(data["device"]),
        kind=data["kind"],
        unit=str(data["unit"]),
        space=space,
        image_size=(height, width),
        num_classes=classes,
        features=data["features"],
        intercept=float(data["intercept"]),
        coefficients=_coefficients(data["coefficients"], names),
        variant=str(data["variant"]),
        head=data["head"],
        info={key: value for key, value in data.items() if key not in _KEYS},
    )
    if not np.isfinite(model.coefficients).all() or not math.isfinite(model.intercept):
        raise InputError("intercept and coefficients must be finite numbers")
    if data["content_hash"] != (actual := _hash(data)):
        raise InputError(
            f"content_hash is {data['content_hash']!r}, but the content has the hash {actual!r}: the file "
            "was edited; fit the model again"
        )
    return model


def _coefficients(values: Any, names: tuple[str, ...] | None) -> np.ndarray:
    """Returns coefficients, float64 [features], from their JSON form.

    The form is an object if the features have names and a list otherwise. Coefficients that are missing
    in an object are 0.
    """
    if names is not None:
        if not isinstance(values, dict) or not set(values) <= set(names):
            raise InputError(f"coefficients are not named after the features {OpSums.name!r} of this space")
        values = [values.get(name, 0.0) for name in names]
    array = np.array(values, np.float64)
    if array.ndim != 1:
        raise InputError("coefficients must be a list or an object of numbers")
    return array
