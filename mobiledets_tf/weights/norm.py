"""Recovery of missing batch normalisation statistics in one pass over images.

A search normalises by the statistics of the batch and keeps none: `recover_norm` measures and sets
them. A .tflite file contains convolutions with batch normalisation folded in. After an import its
normalisations are the identity; training would normalise by the statistics of the batch instead and so
destroy what the network has learnt. `unfold_norm` sets measured statistics, and scales and offsets
with which the network still computes the same.
"""

from collections.abc import Sequence

import numpy as np

from mobiledets_tf.compat import keras, tf

Images = Sequence[tf.Tensor | np.ndarray]


def recover_norm(detector: keras.Model, images: Images) -> None:
    """Sets the moving statistics of all batch normalisations to their means over some batches.

    The network runs in training mode, so that the input of each normalisation has been normalised by
    the statistics of the batch as well.

    Args:
      detector: model made by `build_detector`.
      images: one or more batches, float32 [batch, height, width, 3] in [-1, 1].
    """
    NormStatistics(detector).recover(images)


def unfold_norm(detector: keras.Model, images: Images) -> None:
    """Sets the statistics of all batch normalisations without changing what they compute in inference.

    A normalisation computes a * z + b; with the mean m and the variance v of z over the images its
    scale becomes a * sqrt(v + epsilon) and its offset b + a * m.

    Args:
      detector: model made by `build_detector`.
      images: as in `recover_norm`; 100 photos are enough.
    """
    NormStatistics(detector).unfold(images)


class NormStatistics:
    """Measures and sets the statistics of a detector's batch normalisations; traced once for several passes.

    Args:
      detector: model made by `build_detector`.
    """

    def __init__(self, detector: keras.Model):
        self._norms = [n for n in detector.layers if isinstance(n, keras.layers.BatchNormalization)]
        reader = keras.Model(detector.input, [norm.input for norm in self._norms])

        # Feature maps are reduced in the same function, so that they are freed as early as possible.
        @tf.function(reduce_retracing=True)
        def measure(batch: tf.Tensor, training: bool) -> list:
            return [tf.nn.moments(x, [0, 1, 2]) for x in reader(batch, training=training)]

        self._measure = measure

    def recover(self, images: Images) -> None:
        """See `recover_norm`."""
        for norm, (mean, variance) in zip(self._norms, self._moments(images, True), strict=True):
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(variance)

    def unfold(self, images: Images) -> None:
        """See `unfold_norm`."""
        for norm, (mean, variance) in zip(self._norms, self._moments(images, False), strict=True):
            old_mean, old_variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
            factor = norm.gamma.numpy().astype(np.float64) / np.sqrt(old_variance + norm.epsilon)
            offset = norm.beta.numpy() - factor * old_mean
            norm.gamma.assign(factor * np.sqrt(variance + norm.epsilon))
            norm.beta.assign(offset + factor * mean)
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(variance)

    def _moments(self, images: Images, training: bool) -> list[np.ndarray]:
        """Returns [mean, variance] of each BN's input, averaged over batches; float64 [channels] each."""
        found = [self._measure(tf.convert_to_tensor(batch), training) for batch in images]
        if not found:
            raise ValueError("there are no batches of images; allowed: 1 or more")
        by_norm = zip(*found, strict=True)
        return [np.mean([np.array(pair, np.float64) for pair in pairs], axis=0) for pairs in by_norm]
