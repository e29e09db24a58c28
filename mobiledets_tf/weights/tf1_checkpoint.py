"""Imports MobileDet checkpoints of the TF1 Object Detection API by their variable names.

The names are those created by `ssd_mobiledet_feature_extractor.py`, `feature_map_generators.py` and
the convolutional box predictor of the TF1 API; the published checkpoints use them.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mobiledets_tf import architecture as architectures
from mobiledets_tf.architecture import (
    Architecture,
    ConvSpec,
    FusedInvertedBottleneckSpec,
    InvertedBottleneckNoExpansionSpec,
    InvertedBottleneckSpec,
    TuckerSpec,
)
from mobiledets_tf.architecture.head import ANCHORS_PER_LOCATION
from mobiledets_tf.compat import tf
from mobiledets_tf.errors import InputError, first_line
from mobiledets_tf.weights import checkpoints
from mobiledets_tf.weights.imported_weights import BN_WEIGHTS, Account, Convolution, Target

SCOPES = {"MobileDetCPU": "cpu", "MobileDetEdgeTPU": "edgetpu", "MobileDetDSP": "dsp", "MobileDetGPU": "gpu"}
_ROOT = "FeatureExtractor/"
_LAYER_SCOPES = {
    InvertedBottleneckNoExpansionSpec: "IBNNoExpansion",
    InvertedBottleneckSpec: "IBN",
    FusedInvertedBottleneckSpec: "FusedConv",
    TuckerSpec: "TuckerConv",
}
# Reasons why a variable is not a weight of the network; the first matching pattern applies.
_NO_WEIGHTS = (
    (re.compile(r"quant(_\d+)?(/|$)"), "range of quantisation-aware training"),
    (re.compile(r"/(Momentum|RMSProp(_1)?|Adam(_1)?)$"), "slot of the optimizer"),
    (re.compile(r"/ExponentialMovingAverage$"), "moving average of a weight that is imported itself"),
    (re.compile(r"^global_step$"), "step of the previous training"),
)


def prefix(path: str | os.PathLike) -> str:
    """Returns the checkpoint prefix for a folder, a prefix, or one of a checkpoint's files."""
    text = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", os.fspath(path))
    if tf.io.gfile.isdir(text) and tf.train.latest_checkpoint(text) is None:
        # In the model zoo's archives the `checkpoint` file refers to another folder or is missing.
        found = sorted(tf.io.gfile.glob(os.path.join(text, "*.ckpt*.index")))
        if len(found) == 1:
            return found[0].removesuffix(".index")
    return checkpoints.find(text)


def scope(variables: Iterable[str]) -> str | None:
    """Returns the extractor's scope, such as `MobileDetEdgeTPU`, or None if there is no single MobileDet."""
    found = {match[1] for name in variables if (match := re.match(rf"{_ROOT}(MobileDet\w*)/", name))}
    return found.pop() if len(found) == 1 else None


def read(
    path: str | os.PathLike,
    architecture: Architecture | None = None,
    num_classes: int | None = None,
    image_size: tuple[int, int] = (320, 320),
    depth_multiplier: float = 1.0,
) -> Account:
    """Reads the weights of a TF1 checkpoint under canonical names.

    Args:
      path: checkpoint prefix, one of the checkpoint's files, or its folder.
      architecture: the network; default: the published network that the scope names.
      num_classes: number of classes of the wanted detector; default: that of the checkpoint. If it
        differs, the last convolutions of the class predictors keep their initial weights.
      image_size: (height, width) of the wanted detector in pixels; it affects no weight.
      depth_multiplier: depth multiplier that the checkpoint was trained with.

    Raises:
      InputError: the checkpoint is not one of a MobileDet, lacks a variable, or has one of a wrong shape.
    """
    where = prefix(path)
    _require_data(where)
    shapes = _shapes(where)
    found = scope(shapes)
    if found is None:
        raise InputError(
            f"checkpoint {where!r} is not a MobileDet of the TF1 API: no variable begins with "
            f"{_ROOT}MobileDet"
        )
    target = Target(
        architecture=_architecture(architecture, found, where),
        num_classes=num_classes or _num_classes(shapes, where),
        image_size=image_size,
        depth_multiplier=depth_multiplier,
    )
    account = Account(where, "tf1_checkpoint", target)
    reader = tf.train.load_checkpoint(where)
    for conv, names in _named(target, found, shapes):
        _take(account, conv, names, shapes, reader)
    _skip_rest(account, shapes)
    return account


def _require_data(where: str) -> None:
    """Raises InputError if a checkpoint lacks one of its data files."""
    shards = tf.io.gfile.glob(f"{where}.data-?????-of-?????")
    counts = {int(shard.rsplit("-", 1)[1]) for shard in shards}
    count = max(counts, default=1)
    for number in range(count):
        name = f"{where}.data-{number:05d}-of-{count:05d}"
        if name not in shards:
            raise InputError(f"checkpoint {where!r} lacks its data file {os.path.basename(name)!r}")


def _shapes(path: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    where = prefix(path)
    reader = checkpoints.open_reader(where)
    return {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}


def _architecture(given: Architecture | None, found: str, where: str) -> Architecture:
    published = SCOPES.get(found)
    if given is None:
        if published is None:
            raise InputError(f"checkpoint {where!r} has the unknown scope {found!r}; set --architecture")
        return architectures.load(published)
    if published is not None and given.name in architectures.PUBLISHED and given.name != published:
        raise InputError(
            f"--architecture={given.name}, but checkpoint {where!r} belongs to {published!r} ({found})"
        )
    return given


def _num_classes(shapes: dict[str, tuple[int, ...]], where: str) -> int:
    name = "BoxPredictor_0/ClassPredictor/biases"
    if name not in shapes:
        raise InputError(f"checkpoint {where!r} has no {name}; set --num_classes")
    slots, rest = divmod(shapes[name][0], ANCHORS_PER_LOCATION[0])
    if rest or slots < 2:
        raise InputError(
            f"checkpoint {where!r}: {name} has shape {shapes[name]}; expected 3 anchors * (classes + 1)"
        )
    return slots - 1


def _named(
    target: Target, found: str, shapes: dict[str, tuple[int, ...]]
) -> Iterator[tuple[Convolution, dict[str, str]]]:
    """Yields (convolution, {part: TF1 variable name}) for every convolution of the detector."""
    layers = _backbone_scopes(target.architecture)
    used: Counter[str] = Counter()
    for conv in target.convolutions():
        if conv.layer in layers:
            base = f"{_ROOT}{found}/{_conv_scope(conv, layers[conv.layer], used)}"
        elif conv.layer.startswith("extra"):
            base = f"{_ROOT}{found}/{_extra_scope(conv, found, shapes)}"
        else:
            base = _predictor_scope(conv)
        yield conv, _variable_names(conv, base)


def _backbone_scopes(architecture: Architecture) -> dict[str, str]:
    """Maps layer names to variable scopes; TF1 numbers the layers of each kind separately."""
    counts: Counter[str] = Counter()
    scopes = {}
    for name, spec in architecture.named_layers():
        if isinstance(spec, ConvSpec):
            scopes[name] = ""
            continue
        kind = _LAYER_SCOPES[type(spec)]
        scopes[name] = f"{kind}_{counts[kind]}/" if counts[kind] else f"{kind}/"
        counts[kind] += 1
    return scopes


def _conv_scope(conv: Convolution, layer_scope: str, used: Counter) -> str:
    """Returns a convolution's scope; full convolutions are numbered, each layer has one depthwise."""
    if conv.op.depthwise:
        return f"{layer_scope}SeparableConv2d"
    inside = f"{layer_scope}SqueezeExcite/" if "_se_" in conv.name else layer_scope
    number = used[inside]
    used[inside] += 1
    return f"{inside}Conv_{number}" if number else f"{inside}Conv"


def _extra_scope(conv: Convolution, found: str, shapes: dict[str, tuple[int, ...]]) -> str:
    """Finds a scope by its level alone, because the width in its name depends on the depth multiplier."""
    level = int(conv.layer.removeprefix("extra")) + 1
    tail = {
        "reduce": r"C5_1_Conv2d_{}_1x1_\d+",
        "depthwise": r"C5_2_Conv2d_{}_3x3_s2_\d+_depthwise",
        "conv": r"C5_2_Conv2d_{}_3x3_s2_\d+",
    }[conv.op.name].format(level)
    pattern = re.compile(rf"{_ROOT}{found}/({tail})/(depthwise_)?weights")
    names = {match[1] for name in shapes if (match := pattern.fullmatch(name))}
    return names.pop() if len(names) == 1 else tail.replace(r"\d+", "?")


def _predictor_scope(conv: Convolution) -> str:
    number, task = conv.layer.removeprefix("predictor").split("_")
    base = f"BoxPredictor_{number}/{'BoxEncodingPredictor' if task == 'box' else 'ClassPredictor'}"
    return f"{base}_depthwise" if conv.op.depthwise else base


def _variable_names(conv: Convolution, base: str) -> dict[str, str]:
    names = {"kernel": f"{base}/{'depthwise_weights' if conv.op.depthwise else 'weights'}"}
    if conv.op.batch_norm:
        return names | {part: f"{base}/BatchNorm/{part}" for part in BN_WEIGHTS}
    return names | {"bias": f"{base}/biases"}


def _take(
    account: Account,
    conv: Convolution,
    names: dict[str, str],
    shapes: dict[str, tuple[int, ...]],
    reader: Any,
) -> None:
    canonical = {part: _canonical(conv, part) for part in names}
    wanted = {part: _shape(conv, part) for part in names}
    if conv.depends_on_classes and all(names[p] in shapes for p in names):
        columns = shapes[names["bias"]][0]
        if columns != conv.op.out_channels:
            anchors = conv.op.out_channels // (account.target.num_classes + 1)
            why = f"it has {columns // anchors - 1} classes, but the network has {account.target.num_classes}"
            account.leave_fresh(list(names.values()), list(canonical.values()), why)
            return
    for part, name in names.items():
        if name not in shapes:
            raise InputError(f"checkpoint {account.source!r} has no {name}, the source of {canonical[part]}")
        if shapes[name] != wanted[part]:
            raise InputError(
                f"checkpoint {account.source!r}: {name} has shape {shapes[name]}, but {canonical[part]} of "
                f"the network has {wanted[part]}; check --architecture and --depth_multiplier"
            )
        account.take(name, _value(reader, name, account.source), canonical[part], wanted[part])


def _value(reader: Any, name: str, where: str) -> np.ndarray:
    try:
        return reader.get_tensor(name)
    except checkpoints.READ_ERRORS as error:
        raise InputError(
            f"checkpoint {where!r}: {name} cannot be read: {first_line(error)}; is its .data file complete?"
        ) from error


def _canonical(conv: Convolution, part: str) -> str:
    return {"kernel": conv.kernel, "bias": conv.bias}.get(part) or conv.norm(part)


def _shape(conv: Convolution, part: str) -> tuple[int, ...]:
    return conv.kernel_shape if part == "kernel" else (conv.op.out_channels,)


def _skip_rest(account: Account, shapes: dict[str, tuple[int, ...]]) -> None:
    for name in sorted(shapes):
        if name not in account.taken and name not in account.skipped:
            reasons = (why for pattern, why in _NO_WEIGHTS if pattern.search(name))
            why = next(reasons, None)
            if why is None:
                raise InputError(
                    f"checkpoint {account.source!r}: {name} {shapes[name]} has no counterpart in "
                    f"{account.target.architecture.name!r}; check --architecture"
                )
            account.skipped[name] = why
