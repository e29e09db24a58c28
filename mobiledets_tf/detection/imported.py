"""Weights of foreign origin under canonical names, with an account of every tensor.

The readers (`tf1_checkpoint`, `tflite_export.import_weights`) fill an `Account`; `write` makes a
folder of it that export reads.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf import files
from mobiledets_tf.architecture import Architecture
from mobiledets_tf.architecture.ops import ConvOp, SqueezeExciteOp
from mobiledets_tf.architecture.summary import detector_ops
from mobiledets_tf.detection import checkpoints
from mobiledets_tf.errors import InputError
from mobiledets_tf.models import build_detector

SCHEMA_VERSION = 1
ACCOUNT = "import.json"
BN_WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")


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
        """(height, width, in, out), out 1 for a depthwise one."""
        k, op = self.op.kernel_size, self.op
        return (k, k, op.in_channels, 1 if op.depthwise else op.out_channels)

    @property
    def bias(self) -> str:
        """Canonical name of the bias (a convolution without BN)."""
        return f"{self.name}/bias:0"

    def norm(self, weight: str) -> str:
        """Canonical name of a BN weight: gamma, beta, moving_mean, moving_variance."""
        return f"{self.name}_bn/{weight}:0"

    @property
    def depends_on_classes(self) -> bool:
        """Whether its shape follows the number of classes."""
        return self.name.endswith("_class_conv") and self.layer.startswith("predictor")


def convolutions(
    architecture: Architecture, num_classes: int, image_size: int | tuple[int, int]
) -> Iterator[Convolution]:
    """Every convolution of a (scaled) detector in order, those of squeeze-excites included."""
    for placed in detector_ops(architecture, num_classes, image_size):
        layer, op = placed.layer_name, placed.op
        if isinstance(op, SqueezeExciteOp):
            for name, inputs, outputs in (
                ("reduce", op.channels, op.hidden), ("expand", op.hidden, op.channels),
            ):  # fmt: skip
                conv = ConvOp(name, 1, 1, inputs, outputs, batch_norm=False)
                yield Convolution(f"{layer}_{op.name}_{name}", layer, conv)
        else:
            yield Convolution(f"{layer}_{op.name}", layer, op)


@dataclass(frozen=True)
class Target:
    """The detector that weights are wanted for.

    Attributes:
      architecture: not yet scaled.
      num_classes: without the background.
      image_size: (height, width) in pixels.
      depth_multiplier: scales all widths.
    """

    architecture: Architecture
    num_classes: int
    image_size: tuple[int, int] = (320, 320)
    depth_multiplier: float = 1.0

    def convolutions(self) -> list[Convolution]:
        """The convolutions of the scaled detector."""
        scaled = self.architecture.scaled(self.depth_multiplier)
        return list(convolutions(scaled, self.num_classes, self.image_size))


@dataclass
class Account:
    """What became of each tensor of a file.

    Attributes:
      source: the file.
      kind: `tf1_checkpoint` or `tflite`.
      target: the detector.
      weights: canonical name -> float32 value.
      taken: tensor of the file -> the canonical name or names it went to.
      skipped: tensor of the file -> why it was left.
      fresh: canonical name -> why it keeps its fresh value.
      folded_norm: whether BN was folded into the kernels, so that it has no statistics.
    """

    source: str
    kind: str
    target: Target
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    folded_norm: bool = False

    def take(self, tensor: str, value: np.ndarray, name: str, shape: tuple[int, ...]) -> None:
        """Puts a tensor under a canonical name.

        Raises:
          InputError: its shape is not the network's (both are given), or a value is not finite.
        """
        if tuple(value.shape) != tuple(shape):
            raise InputError(
                f"{self.source!r}: {tensor} is {tuple(value.shape)} and {name} of the network is "
                f"{tuple(shape)}; another --architecture or --depth_multiplier?"
            )
        if not np.isfinite(value).all():
            raise InputError(f"{self.source!r}: {tensor} holds a number that is not finite")
        self.weights[name] = np.asarray(value, np.float32)
        self.taken[tensor] = f"{self.taken[tensor]}, {name}" if tensor in self.taken else name

    def leave_fresh(self, tensors: list[str], names: list[str], why: str) -> None:
        """Skips tensors and leaves weights as they are, for one reason."""
        self.skipped |= dict.fromkeys(tensors, why)
        self.fresh |= dict.fromkeys(names, why)

    def summary(self) -> list[str]:
        """Lines for people: counts, then each reason with its number of tensors."""
        lines = [f"{len(self.taken)} tensors imported into {len(self.weights)} weights"]
        for title, reasons in (("skipped", self.skipped), ("fresh", self.fresh)):
            for why in dict.fromkeys(reasons.values()):
                names = [name for name, reason in reasons.items() if reason == why]
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                lines.append(f"{title}: {names[0]}{more}: {why}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """What `import.json` says."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": os.path.basename(self.source),
            "kind": self.kind,
            "architecture": self.target.architecture.name,
            "num_classes": self.target.num_classes,
            "image_size": list(self.target.image_size),
            "depth_multiplier": self.target.depth_multiplier,
            "folded_norm": self.folded_norm,
            "taken": self.taken,
            "skipped": self.skipped,
            "fresh": self.fresh,
        }


def assign(account: Account, named_weights: dict[str, Any]) -> None:
    """Gives a network the imported weights; every weight is imported or said to be fresh.

    Raises:
      InputError: a weight is neither, or an imported one has no place.
    """
    missing = named_weights.keys() - account.weights.keys() - account.fresh.keys()
    left = account.weights.keys() - named_weights.keys()
    if missing or left:
        name = sorted(missing or left)[0]
        where = "missing in the file" if missing else "not in the network"
        raise InputError(f"{account.source!r} is of another network: {name} is {where}")
    for name, value in account.weights.items():
        named_weights[name].assign(value)


def write(account: Account, output_dir: str | os.PathLike) -> str:
    """Writes a checkpoint with its network, settings and account; returns the checkpoint's prefix."""
    folder, target = Path(output_dir), account.target
    network = build_detector(
        target.architecture, target.num_classes, target.image_size, target.depth_multiplier
    )
    assign(account, {weight.name: weight for weight in network.weights})
    folder.mkdir(parents=True, exist_ok=True)
    architectures.save(target.architecture, folder / "architecture.json")
    settings = {
        "schema_version": SCHEMA_VERSION,
        "num_classes": target.num_classes,
        "image_size": list(target.image_size),
        "depth_multiplier": target.depth_multiplier,
    }
    prefix = checkpoints.save({weight.name: weight for weight in network.weights}, folder)
    files.write_artefact(folder / ACCOUNT, account.to_dict())
    files.write_json(folder / "settings.json", settings)
    return prefix
