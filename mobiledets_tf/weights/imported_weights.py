"""Imported weights under canonical names, with a record of what happened to every tensor.

The readers (`own_checkpoint`, `tf1_checkpoint`, `tflite_file`) fill an `Account`; `write` saves it as
a folder that export can read.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf import files
from mobiledets_tf.architecture import Architecture
from mobiledets_tf.architecture.ops import ConvOp, SqueezeExciteOp
from mobiledets_tf.architecture.summary import detector_ops
from mobiledets_tf.errors import InputError
from mobiledets_tf.layers import BACKBONE_NORM, HEAD_NORM
from mobiledets_tf.models import build_detector
from mobiledets_tf.weights import checkpoints, trained_folder

SCHEMA_VERSION = 1
ACCOUNT = "import.json"
BN_WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")
# Possible uses of weights with and without batch normalisation folded into the kernels.
_INFERENCE_ONLY = "inference only: batch normalisation is folded; training recovers it first"
_ALL_USES = "inference and training"
# Tolerance for the variance of an imported, folded batch normalisation, which is 1 - epsilon in float32.
_CLOSE = 1e-6


@dataclass(frozen=True)
class Convolution:
    """One convolution of a detector: its canonical name, its layer, and its operation."""

    name: str
    layer: str
    op: ConvOp

    @property
    def kernel(self) -> str:
        """Canonical name of the kernel."""
        return f"{self.name}/{'depthwise_kernel' if self.op.depthwise else 'kernel'}:0"

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape of the kernel: (height, width, in, out), where out is 1 for a depthwise convolution."""
        k, op = self.op.kernel_size, self.op
        return (k, k, op.in_channels, 1 if op.depthwise else op.out_channels)

    @property
    def bias(self) -> str:
        """Canonical name of the bias, which only convolutions without BN have."""
        return f"{self.name}/bias:0"

    def norm(self, weight: str) -> str:
        """Returns the canonical name of a BN weight: gamma, beta, moving_mean or moving_variance."""
        return f"{self.name}_bn/{weight}:0"

    @property
    def epsilon(self) -> float:
        """Epsilon of the convolution's batch normalisation."""
        head = self.layer.startswith(("extra", "predictor"))
        return (HEAD_NORM if head else BACKBONE_NORM).epsilon

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the convolution's weights by canonical name, including those of its BN."""
        shapes: dict[str, tuple[int, ...]] = {self.kernel: self.kernel_shape}
        names = [self.norm(part) for part in BN_WEIGHTS] if self.op.batch_norm else [self.bias]
        return shapes | dict.fromkeys(names, (self.op.out_channels,))

    @property
    def depends_on_classes(self) -> bool:
        """Whether the convolution's shape depends on the number of classes."""
        return self.name.endswith("_class_conv") and self.layer.startswith("predictor")


def convolutions(
    architecture: Architecture, num_classes: int, image_size: int | tuple[int, int]
) -> Iterator[Convolution]:
    """Yields every convolution of a (scaled) detector in order, including those of squeeze-and-excite."""
    for placed in detector_ops(architecture, num_classes, image_size):
        layer, op = placed.layer_name, placed.op
        if isinstance(op, SqueezeExciteOp):
            for name, inputs, outputs in (
                ("reduce", op.channels, op.hidden),
                ("expand", op.hidden, op.channels),
            ):
                conv = ConvOp(name, 1, 1, inputs, outputs, batch_norm=False)
                yield Convolution(f"{layer}_{op.name}_{name}", layer, conv)
        else:
            yield Convolution(f"{layer}_{op.name}", layer, op)


@dataclass(frozen=True)
class Target:
    """The detector that weights are imported for.

    Attributes:
      architecture: the network, before `depth_multiplier` is applied.
      num_classes: number of classes without the background.
      image_size: (height, width) in pixels.
      depth_multiplier: scales all widths.
    """

    architecture: Architecture
    num_classes: int
    image_size: tuple[int, int] = (320, 320)
    depth_multiplier: float = 1.0

    def convolutions(self) -> list[Convolution]:
        """Lists the convolutions of the scaled detector."""
        scaled = self.architecture.scaled(self.depth_multiplier)
        return list(convolutions(scaled, self.num_classes, self.image_size))


@dataclass(frozen=True)
class Origin:
    """How a weight was derived from the weights of another network.

    Attributes:
      how: `copied`, `cut` to fewer channels or a smaller kernel, `widened` by newly initialised
        channels or to a larger kernel, `decomposed`, or `composed` of several weights.
      sources: canonical names in the other network.
      error: Frobenius norm of the residual of a decomposition, as a fraction of the norm of the
        whole; None otherwise.
    """

    how: str
    sources: tuple[str, ...]
    error: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the origin as a JSON-serialisable dictionary."""
        error = {} if self.error is None else {"relative_error": round(self.error, 6)}
        return {"how": self.how, "from": list(self.sources)} | error


@dataclass
class Account:
    """Record of what happened to each tensor of an imported file.

    Attributes:
      source: path of the file.
      kind: kind of the file, for example `tf1_checkpoint` or `tflite`.
      target: the detector that the weights are imported for.
      weights: maps canonical names to float32 values.
      taken: maps each imported tensor of the file to the canonical name or names it was assigned to.
      skipped: maps each skipped tensor of the file to the reason.
      fresh: maps the canonical name of each weight that keeps its initial value to the reason.
      folded_norm: whether BN was folded into the kernels, so that it has no statistics.
      origins: maps canonical names to their origin, if the weights come from another network.
      notes: further remarks, one sentence each.
    """

    source: str
    kind: str
    target: Target
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    folded_norm: bool = False
    origins: dict[str, Origin] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, tensor: str, value: np.ndarray, name: str, shape: tuple[int, ...]) -> None:
        """Imports a tensor under a canonical name.

        Args:
          tensor: name of the tensor in the file.
          value: value of the tensor.
          name: canonical name of the weight.
          shape: shape of the weight in the network.

        Raises:
          InputError: the shapes differ (the message names both), or a value is not finite.
        """
        if tuple(value.shape) != tuple(shape):
            raise InputError(
                f"{self.source!r}: {tensor} has shape {tuple(value.shape)}, but {name} of the network has "
                f"{tuple(shape)}; check --architecture and --depth_multiplier"
            )
        if not np.isfinite(value).all():
            raise InputError(f"{self.source!r}: {tensor} contains a number that is not finite")
        self.weights[name] = np.asarray(value, np.float32)
        self.taken[tensor] = f"{self.taken[tensor]}, {name}" if tensor in self.taken else name

    def leave_fresh(self, tensors: list[str], names: list[str], why: str) -> None:
        """Skips tensors and keeps the initial values of weights, for the same reason."""
        self.skipped |= dict.fromkeys(tensors, why)
        self.fresh |= dict.fromkeys(names, why)

    def summary(self) -> list[str]:
        """Returns readable lines: counts first, then each reason with its number of tensors."""
        lines = [f"{len(self.taken)} tensors imported into {len(self.weights)} weights", *self.notes]
        lines += self._remapped()
        if self.folded_norm:
            lines.append(_INFERENCE_ONLY)
        for title, reasons in (("skipped", self.skipped), ("fresh", self.fresh)):
            for why in dict.fromkeys(reasons.values()):
                names = [name for name, reason in reasons.items() if reason == why]
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                lines.append(f"{title}: {names[0]}{more}: {why}")
        return lines

    def _remapped(self) -> list[str]:
        """Returns a line that counts the weights derived from another network by how they were derived."""
        if not self.origins:
            return []
        count = Counter(origin.how for origin in self.origins.values())
        parts = [f"{number} {how}" for how, number in sorted(count.items())]
        errors = [o.error for o in self.origins.values() if o.error is not None]
        if errors:
            parts.append(f"relative error of decompositions {min(errors):.2f} to {max(errors):.2f}")
        return [f"weights of another network: {', '.join(parts)}, {len(self.fresh)} fresh"]

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `import.json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": os.path.basename(self.source),
            "kind": self.kind,
            "architecture": self.target.architecture.name,
            "num_classes": self.target.num_classes,
            "image_size": list(self.target.image_size),
            "depth_multiplier": self.target.depth_multiplier,
            "folded_norm": self.folded_norm,
            "use": _INFERENCE_ONLY if self.folded_norm else _ALL_USES,
            "notes": self.notes,
            "taken": self.taken,
            "skipped": self.skipped,
            "fresh": self.fresh,
            "remapped": {name: origin.to_dict() for name, origin in self.origins.items()},
        }


def is_folded(convolutions: Iterable[Convolution], weights: Mapping[str, np.ndarray]) -> bool:
    """Returns whether every BN of a network is the identity, as after the import of a .tflite file.

    Args:
      convolutions: the convolutions of the network.
      weights: all weights of the network by canonical name.
    """
    return all(
        np.all(weights[conv.norm("gamma")] == 1.0)
        and np.all(weights[conv.norm("moving_mean")] == 0.0)
        and np.all(np.abs(weights[conv.norm("moving_variance")] - (1.0 - conv.epsilon)) < _CLOSE)
        for conv in convolutions
        if conv.op.batch_norm
    )


def assign(account: Account, named_weights: dict[str, Any]) -> None:
    """Assigns the imported weights to a network; each of its weights is either imported or listed as fresh.

    Raises:
      InputError: a weight is neither, or an imported weight is not in the network.
    """
    missing = named_weights.keys() - account.weights.keys() - account.fresh.keys()
    left = account.weights.keys() - named_weights.keys()
    if missing or left:
        name = sorted(missing or left)[0]
        where = "missing from the file" if missing else "not in the network"
        raise InputError(f"{account.source!r} belongs to another network: {name} is {where}")
    for name, value in account.weights.items():
        named_weights[name].assign(value)


def write(account: Account, output_dir: str | os.PathLike) -> str:
    """Writes a checkpoint with its architecture, settings and account; returns the checkpoint's prefix."""
    folder, target = Path(output_dir), account.target
    network = build_detector(
        target.architecture, target.num_classes, target.image_size, target.depth_multiplier
    )
    assign(account, {weight.name: weight for weight in network.weights})
    folder.mkdir(parents=True, exist_ok=True)
    architectures.save(target.architecture, folder / trained_folder.ARCHITECTURE)
    settings = {
        "schema_version": trained_folder.SETTINGS_VERSION,
        "num_classes": target.num_classes,
        "image_size": list(target.image_size),
        "depth_multiplier": target.depth_multiplier,
    }
    prefix = checkpoints.save({weight.name: weight for weight in network.weights}, folder)
    files.write_artefact(folder / ACCOUNT, account.to_dict())
    files.write_json(folder / trained_folder.SETTINGS, settings)
    return prefix
