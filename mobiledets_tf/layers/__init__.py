"""Keras layers for the blocks of the TDB search space (MobileDets, arXiv 2004.14525)."""

from mobiledets_tf.layers.activations import hard_swish
from mobiledets_tf.layers.base import BACKBONE_NORM, HEAD_NORM, BatchNorm, TDBLayer
from mobiledets_tf.layers.conv_bn_activation import ConvBNActivation
from mobiledets_tf.layers.fused_inverted_bottleneck import FusedInvertedBottleneck
from mobiledets_tf.layers.initializers import DepthwiseHeNormal
from mobiledets_tf.layers.inverted_bottleneck import InvertedBottleneck, InvertedBottleneckNoExpansion
from mobiledets_tf.layers.registry import layer_for
from mobiledets_tf.layers.squeeze_excite import SqueezeExcite
from mobiledets_tf.layers.tucker import Tucker

__all__ = [
    "BACKBONE_NORM",
    "HEAD_NORM",
    "BatchNorm",
    "ConvBNActivation",
    "DepthwiseHeNormal",
    "FusedInvertedBottleneck",
    "InvertedBottleneck",
    "InvertedBottleneckNoExpansion",
    "SqueezeExcite",
    "TDBLayer",
    "Tucker",
    "hard_swish",
    "layer_for",
]
