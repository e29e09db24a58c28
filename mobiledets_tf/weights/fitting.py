"""Preparation of weights of any origin for training a detector of the same or another architecture."""

import dataclasses
from collections.abc import Callable

import numpy as np

from mobiledets_tf.compat import keras
from mobiledets_tf.models import build_detector
from mobiledets_tf.weights import imported_weights
from mobiledets_tf.weights.imported_weights import Account, Target
from mobiledets_tf.weights.norm import Images, NormStatistics, unfold_norm
from mobiledets_tf.weights.remap import Remapped, remap, same_network


def needs_images(source: Account, target: Target) -> bool:
    """Returns whether images are needed before a detector can be trained from the weights."""
    return source.folded_norm or not same_network(source.target, target)


def fit(
    source: Account,
    target: Target,
    images: Images | None,
    build: Callable[[], keras.Model] | None = None,
    seed: int = 0,
    by_worth: bool = False,
) -> Account:
    """Fits the weights of an account to a detector and recovers batch normalisation.

    Weights of the same network stay the same, bit for bit, unless their batch normalisation is folded:
    then its statistics are measured, and the network still computes the same. Weights of another
    network are remapped, and new statistics are measured.

    Args:
      source: all weights of one network.
      target: the wanted detector.
      images: batches of float32 [batch, height, width, 3] in [-1, 1] with the target's image size. With
        None, folded weights remain usable for inference only.
      build: makes the wanted detector; by default `build_detector`.
      seed: seed of newly initialised weights.
      by_worth: whether channels are sorted by importance, even for the same network; see
        `channels.Choice`.
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
    imported_weights.assign(account, _named(detector))
    if images is not None:
        _correct(remapped, detector, images)
        # Newly initialised weights are included because the statistics were measured with them.
        account.weights = {name: weight.numpy() for name, weight in _named(detector).items()}
        account.notes.append(_measured(images))
    return account


def _build(target: Target) -> keras.Model:
    return build_detector(target.architecture, target.num_classes, target.image_size, target.depth_multiplier)


def _named(detector: keras.Model) -> dict:
    return {weight.name: weight for weight in detector.weights}


def _unfolded(source: Account, detector: keras.Model, images: Images) -> Account:
    """Returns the account with measured statistics in the batch normalisation of the same network."""
    imported_weights.assign(source, _named(detector))
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
    return f"batch normalisation recovered from {sum(len(batch) for batch in images)} images"


def _correct(remapped: Remapped, detector: keras.Model, images: Images) -> None:
    """Sets the statistics of a remapped network.

    If a batch normalisation keeps an activation linear, the remapping estimated the standard deviation of
    its input. The kernel that reads its output is scaled by the error of the estimate, so that the product
    does not change.
    """
    statistics = NormStatistics(detector)
    before = {conv.name: _factor(detector, conv.name) for conv, _ in remapped.linear}
    statistics.recover(images)
    if not before:
        return
    for conv, reader in remapped.linear:
        kernel = detector.get_layer(reader.name).weights[0]
        ratio = before[conv.name] / _factor(detector, conv.name)
        # Input channels are the third axis, in depthwise kernels as well.
        kernel.assign(kernel.numpy() * ratio[:, None])
    statistics.recover(images)


def _factor(detector: keras.Model, name: str) -> np.ndarray:
    """Returns the factor that a convolution's batch normalisation multiplies by; float64 [channels]."""
    norm = detector.get_layer(f"{name}_bn")
    return norm.gamma.numpy().astype(np.float64) / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
