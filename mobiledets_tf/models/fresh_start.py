"""Sets the start of a training from scratch: residual layers add nothing to their input yet.

The scale of the last batch normalisation of each residual layer is 0 (Goyal et al., arXiv 1706.02677,
section 5.1). A detector is then a shallow network at first, whose gradient reaches every layer.
"""

from collections.abc import Mapping
from typing import Any

from mobiledets_tf.architecture import Architecture


def residual_scales(architecture: Architecture) -> list[str]:
    """Canonical names of the BN scales that start at 0.

    Args:
      architecture: the network.
    """
    layers = [name for name, layer in architecture.named_layers() if layer.residual]
    return [f"{name}_project_bn/gamma:0" for name in layers]


def zero_residual_scales(architecture: Architecture, named_weights: Mapping[str, Any]) -> None:
    """Sets them to 0.

    Args:
      architecture: of the network.
      named_weights: its variables by canonical name.
    """
    for name in residual_scales(architecture):
        variable = named_weights[name]
        variable.assign(0.0 * variable)
