"""The device `madds`: exact multiply-adds as a linear latency model."""

import numpy as np

from mobiledets_tf.architecture import image_hw
from mobiledets_tf.architecture.head import check_num_classes
from mobiledets_tf.latency.features import LayerOneHot
from mobiledets_tf.latency.model import LatencyModel
from mobiledets_tf.latency.tables import layer_tables, total_madds
from mobiledets_tf.search_space import SearchSpace


def madds_model(space: SearchSpace, image_size: int | tuple[int, int], num_classes: int) -> LatencyModel:
    """Returns a latency model that predicts the multiply-adds of the whole detector exactly.

    Args:
      space: the search space.
      image_size: side of the input or (height, width), in pixels.
      num_classes: number of classes without the background.

    Raises:
      InputError: the image size or the number of classes is out of range.
    """
    check_num_classes(num_classes)
    size = image_hw(image_size)
    rows, rest = layer_tables(space, size, num_classes, "ssdlite", total_madds)
    return LatencyModel(
        device="madds",
        kind="exact",
        unit="madds",
        space=space,
        image_size=size,
        num_classes=num_classes,
        features=LayerOneHot.name,
        intercept=total_madds(rest),
        coefficients=np.array(rows, np.float64),
    )
