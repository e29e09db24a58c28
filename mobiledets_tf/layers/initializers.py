"""Initialisers of the released networks (source: TF1 extractor and sample configs)."""

import math
from typing import Any

from mobiledets_tf.compat import keras, tf

# Standard deviation of a standard normal distribution truncated at two standard deviations.
_TRUNCATED_STDDEV = 0.87962566103423978


@keras.utils.register_keras_serializable(package="mobiledets")
class DepthwiseHeNormal(keras.initializers.Initializer):
    """Truncated normal with variance 2 / (k * k), for depthwise kernels [k, k, c, 1].

    Keras' own `he_normal` counts all channels in the fan-in of a depthwise kernel, although
    each output depends on one channel only.

    Args:
      seed: integer for reproducible values, or None for a random seed.
    """

    def __init__(self, seed: int | None = None):
        self.seed = seed

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        stddev = math.sqrt(2.0 / (shape[0] * shape[1])) / _TRUNCATED_STDDEV
        return keras.initializers.TruncatedNormal(0.0, stddev, self.seed)(shape, dtype, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}
