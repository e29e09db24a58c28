"""Registry of the Keras layer class of each layer spec."""

import dataclasses

from mobiledets_tf.architecture import specs
from mobiledets_tf.layers.base import BACKBONE_NORM, BatchNorm, TDBLayer
from mobiledets_tf.layers.conv_bn_activation import ConvBNActivation
from mobiledets_tf.layers.fused_inverted_bottleneck import FusedInvertedBottleneck
from mobiledets_tf.layers.inverted_bottleneck import InvertedBottleneck, InvertedBottleneckNoExpansion
from mobiledets_tf.layers.tucker import Tucker

LAYERS: dict[type[specs.LayerSpec], type[TDBLayer]] = {
    specs.ConvSpec: ConvBNActivation,
    specs.InvertedBottleneckNoExpansionSpec: InvertedBottleneckNoExpansion,
    specs.InvertedBottleneckSpec: InvertedBottleneck,
    specs.FusedInvertedBottleneckSpec: FusedInvertedBottleneck,
    specs.TuckerSpec: Tucker,
}


def layer_for(
    spec: specs.LayerSpec,
    name: str,
    activation: str = "relu6",
    se_ratio: float | None = None,
    norm: BatchNorm = BACKBONE_NORM,
) -> TDBLayer:
    """Makes the Keras layer of a spec.

    Args:
      spec: spec of the layer.
      name: name of the layer.
      activation: inner activation, `relu6` or `hard_swish`.
      se_ratio: squeeze-excite ratio after a depthwise convolution, or None.
      norm: BN settings.

    Raises:
      KeyError: no layer is registered for the class of the spec.
    """
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    return LAYERS[type(spec)](
        **fields,
        activation=activation,
        se_ratio=se_ratio,
        bn_momentum=norm.momentum,
        bn_epsilon=norm.epsilon,
        name=name,
    )
