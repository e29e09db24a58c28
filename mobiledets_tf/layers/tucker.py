"""Tucker convolution layer, a generalised bottleneck."""

from typing import Any

from mobiledets_tf.architecture.specs import TuckerSpec
from mobiledets_tf.compat import keras
from mobiledets_tf.layers.base import TDBLayer


@keras.utils.register_keras_serializable(package="mobiledets")
class Tucker(TDBLayer):
    """1x1 compression -> full kxk convolution -> 1x1 linear projection.

    [b, h, w, c] -> [b, h/strides, w/strides, filters]. Inner widths are in_ratio x c and
    out_ratio x filters, rounded half up to a multiple of 8 (MobileDets, section 3).

    Args:
      filters: output channels.
      kernel_size, strides: kernel size and stride of the full convolution.
      residual: whether the input is added to the output; requires strides 1 and c == filters.
      in_ratio, out_ratio: ratios of the inner widths, above 0 and at most 1.
      **kwargs: arguments of `TDBLayer`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        residual: bool = False,
        in_ratio: float = 0.25,
        out_ratio: float = 0.75,
        **kwargs: Any,
    ) -> None:
        super().__init__(TuckerSpec(filters, kernel_size, strides, residual, in_ratio, out_ratio), **kwargs)
