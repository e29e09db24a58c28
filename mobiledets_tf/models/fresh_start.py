"""Initialisation for training from scratch: residual layers initially add nothing to their input.

The scale of the last batch normalisation of each residual layer is 0 (Goyal et al., arXiv 1706.02677,
section 5.1). A detector is then initially a shallow network whose gradient reaches every layer.
"""

from collections.abc import Mapping
from typing import Any

from mobiledets_tf.architecture import Architecture


def residual_scales(architecture: Architecture) -> list[str]:
    """Returns the canonical names of the BN scales that are initialised to 0.

    Args:
      architecture: architecture of the network.
    """
    layers = [name for name, layer in architecture.named_layers() if layer.residual]
    return [f"{name}_project_bn/gamma:0" for name in layers]


def zero_residual_scales(architecture: Architecture, named_weights: Mapping[str, Any]) -> None:
    """Sets the scales listed by `residual_scales` to 0.

    Args:
      architecture: architecture of the network.
      named_weights: variables of the network by canonical name.
    """
    for name in residual_scales(architecture):
        variable = named_weights[name]
        variable.assign(0.0 * variable)
