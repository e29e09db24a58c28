"""Weights of any origin made ready for the training of a network: the same one or another."""

import dataclasses
from collections.abc import Callable

import numpy as np

from mobiledets_tf.compat import keras
from mobiledets_tf.detection import imported
from mobiledets_tf.detection.imported import Account, Target
from mobiledets_tf.models import build_detector
from mobiledets_tf.weights.norm import Images, NormStatistics, unfold_norm
from mobiledets_tf.weights.remap import Remapped, remap, same_network


def needs_images(source: Account, target: Target) -> bool:
    """Whether weights need images before a detector can be trained from them."""
    return source.folded_norm or not same_network(source.target, target)


def fit(
    source: Account, target: Target, images: Images | None, build: Callable[[], keras.Model] | None = None,
    seed: int = 0, by_worth: bool = False,
) -> Account:  # fmt: skip
    """The weights of an account for a detector, batch normalisation recovered.

    Weights of the same network stay as they are, bit for bit, unless their batch normalisation is
    folded: then it gets statistics, and the network still computes the same. Weights of another
    network are remapped, and their statistics measured anew.

    Args:
      source: weights, all of one network.
      target: the wanted detector.
      images: batches of float32 [batch, height, width, 3] in [-1, 1], of the target's image size; None
        where there are none: folded weights then stay for inference only.
      build: makes the wanted detector; default `build_detector`.
      seed: of fresh weights.
      by_worth: orders the channels by importance, also of the same network; see `channels.Choice`.
    """
    keras.utils.set_random_seed(seed)
    build = build or (lambda: _build(target))
    if same_network(source.target, target) and not by_worth:
        return _unfolded(source, build(), images) if source.folded_norm and images is not None else source
    if source.folded_norm and images is not None:
        like = dataclasses.replace(source.target, image_size=target.image_size)
        source = _unfolded(source, _build(like), images)
    detector = build()
    remapped = remap(source, target, {w.name: w.numpy() for w in detector.weights}, by_worth)
    account = dataclasses.replace(remapped.account, folded_norm=source.folded_norm)
    imported.assign(account, _named(detector))
    if images is not None:
        _correct(remapped, detector, images)
        # Fresh tensors too: statistics were measured behind them.
        account.weights = {name: weight.numpy() for name, weight in _named(detector).items()}
        account.notes.append(_measured(images))
    return account


def _build(target: Target) -> keras.Model:
    return build_detector(
        target.architecture, target.num_classes, target.image_size, target.depth_multiplier
    )


def _named(detector: keras.Model) -> dict:
    return {weight.name: weight for weight in detector.weights}


def _unfolded(source: Account, detector: keras.Model, images: Images) -> Account:
    """The same network with statistics in its batch normalisation."""
    imported.assign(source, _named(detector))
    unfold_norm(detector, images)
    named = _named(detector)
    return dataclasses.replace(
        source,
        weights={name: named[name].numpy() for name in source.weights},
        fresh={name: why for name, why in source.fresh.items() if name not in source.weights},
        folded_norm=False,
        notes=[*source.notes, _measured(images)],
    )


def _measured(images: Images) -> str:
    return f"batch normalisation recovered over {sum(len(batch) for batch in images)} images"


def _correct(remapped: Remapped, detector: keras.Model, images: Images) -> None:
    """Sets the statistics of a remapped network.

    Where a batch normalisation keeps an activation linear, the remapping guessed its input's deviation; the
    convolution behind it takes what the guess was wrong by, so that the product stays what it was.
    """
    statistics = NormStatistics(detector)
    before = {conv.name: _factor(detector, conv.name) for conv, _ in remapped.linear}
    statistics.recover(images)
    if not before:
        return
    for conv, reader in remapped.linear:
        kernel = detector.get_layer(reader.name).weights[0]
        ratio = before[conv.name] / _factor(detector, conv.name)
        # Rows are the third axis, in depthwise kernels as well.
        kernel.assign(kernel.numpy() * ratio[:, None])
    statistics.recover(images)


def _factor(detector: keras.Model, name: str) -> np.ndarray:
    """What the batch normalisation of a convolution multiplies by; float64 [channels]."""
    norm = detector.get_layer(f"{name}_bn")
    return norm.gamma.numpy().astype(np.float64) / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
