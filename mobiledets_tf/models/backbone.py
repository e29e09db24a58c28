"""Backbones as Keras models."""

from mobiledets_tf.architecture import Architecture, image_hw
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.layers import BACKBONE_NORM, BatchNorm, layer_for


def backbone_endpoints(
    architecture: Architecture, image: tf.Tensor, norm: BatchNorm = BACKBONE_NORM
) -> dict[str, object]:
    """Applies the backbone's plain Keras layers to `image` and returns the endpoints C1..C5 by name.

    Args:
      architecture: architecture of the network.
      image: symbolic tensor [batch, height, width, 3] in [-1, 1].
      norm: BN settings.
    """
    endpoint_of = {layer: endpoint for endpoint, layer in architecture.endpoints().items()}
    endpoints, x = {}, image
    for name, spec in architecture.named_layers():
        se_ratio = None if spec is architecture.stem else architecture.se_ratio
        x = layer_for(spec, name, architecture.activation, se_ratio, norm).flat(x)
        if name in endpoint_of:
            endpoints[endpoint_of[name]] = x
    return endpoints


def build_backbone(
    architecture: Architecture, image_size: int | tuple[int, int] = 320, depth_multiplier: float = 1.0
) -> keras.Model:
    """Builds the backbone as a flat functional model.

    Example:
      ```python
      from mobiledets_tf import architecture
      from mobiledets_tf.models import build_backbone

      model = build_backbone(architecture.load("cpu"), image_size=96)
      print(model.output_shape["C5"])
      ```

    Args:
      architecture: architecture of the network.
      image_size: side, or (height, width), in pixels.
      depth_multiplier: scales all widths, rounding half up to a multiple of 8.

    Returns:
      A model from `image` [batch, height, width, 3] float32 in [-1, 1] to a dictionary of
      C1..C5, float32 [batch, height/s, width/s, channels] at strides 2, 4, 8, 16, 32.

    Raises:
      InputError: the image size or the multiplier is out of range.
    """
    architecture = architecture.scaled(depth_multiplier)
    image = keras.Input((*image_hw(image_size), 3), name="image")
    return keras.Model(
        image, backbone_endpoints(architecture, image), name=f"mobiledet_{_word(architecture.name)}"
    )


def _word(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
