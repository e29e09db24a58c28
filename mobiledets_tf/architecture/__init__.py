"""Networks as plain data; this package does not use TensorFlow."""

from mobiledets_tf.architecture.head import (
    ANCHORS_PER_LOCATION,
    FeatureMap,
    feature_maps,
    image_hw,
    num_anchors,
)
from mobiledets_tf.architecture.published import PUBLISHED
from mobiledets_tf.architecture.serialization import from_dict, load, save, to_dict
from mobiledets_tf.architecture.specs import (
    Architecture,
    ConvSpec,
    FusedInvertedBottleneckSpec,
    InvertedBottleneckNoExpansionSpec,
    InvertedBottleneckSpec,
    LayerSpec,
    Origin,
    TuckerSpec,
    scale_filters,
)
from mobiledets_tf.architecture.summary import describe

__all__ = [
    "ANCHORS_PER_LOCATION",
    "PUBLISHED",
    "Architecture",
    "ConvSpec",
    "FeatureMap",
    "FusedInvertedBottleneckSpec",
    "InvertedBottleneckNoExpansionSpec",
    "InvertedBottleneckSpec",
    "LayerSpec",
    "Origin",
    "TuckerSpec",
    "describe",
    "feature_maps",
    "from_dict",
    "image_hw",
    "load",
    "num_anchors",
    "save",
    "scale_filters",
    "to_dict",
]
