"""Parameters, multiply-adds, sizes and anchors of a detector, computed from its specification alone."""

import dataclasses
from typing import Any

from mobiledets_tf.architecture import head, specs
from mobiledets_tf.architecture.ops import PlacedOp, backbone_ops


def detector_ops(
    architecture: specs.Architecture,
    num_classes: int = 90,
    image_size: int | tuple[int, int] = 320,
    anchors_per_location: tuple[int, ...] = head.ANCHORS_PER_LOCATION,
) -> list[PlacedOp]:
    """Returns every operation of a detector, backbone and head, in order."""
    size = head.image_hw(image_size)
    return [
        *backbone_ops(architecture, size),
        *head.head_ops(architecture, num_classes, size, anchors_per_location),
    ]


def params(ops: list[PlacedOp]) -> int:
    """Returns the number of parameters including the statistics of BN, as in published counts."""
    return sum(placed.op.params for placed in ops)


def trainable_params(ops: list[PlacedOp]) -> int:
    """Returns the number of parameters without the statistics of BN."""
    return sum(placed.op.trainable_params for placed in ops)


def madds(ops: list[PlacedOp]) -> int:
    """Returns the multiply-adds of all convolutions for one image."""
    return sum(placed.madds for placed in ops)


def describe(
    architecture: specs.Architecture, num_classes: int = 90, image_size: int | tuple[int, int] = 320
) -> dict[str, Any]:
    """Returns a JSON-ready description: totals, layers in order, feature maps and anchors.

    Example:
      ```python
      from mobiledets_tf import architecture

      figures = architecture.describe(architecture.load("edgetpu"), num_classes=10)
      print(figures["params"], figures["madds"], figures["anchors"])
      ```

    `layers` lists the stem and every backbone layer, `head` the extra levels and the
    predictors. Sizes are (height, width) of a layer's output.

    Args:
      architecture: the network to describe.
      num_classes: number of classes without the background.
      image_size: side of the input or (height, width), in pixels.
    """
    ops = detector_ops(architecture, num_classes, image_size)
    by_layer: dict[str, list[PlacedOp]] = {}
    for placed in ops:
        by_layer.setdefault(placed.layer_name, []).append(placed)
    named = architecture.named_layers()
    endpoint_of = {layer: endpoint for endpoint, layer in architecture.endpoints().items()}
    return {
        "name": architecture.name,
        "num_classes": num_classes,
        "image_size": list(head.image_hw(image_size)),
        "activation": architecture.activation,
        "se_ratio": architecture.se_ratio,
        "params": params(ops),
        "trainable_params": trainable_params(ops),
        "madds": madds(ops),
        "anchors": head.num_anchors(architecture, image_size),
        "feature_maps": [
            {"name": m.name, "height": m.size[0], "width": m.size[1], "channels": m.channels}
            for m in head.feature_maps(architecture, image_size)
        ],
        "layers": [
            _describe_layer(name, spec, by_layer[name]) | {"endpoint": endpoint_of.get(name)}
            for name, spec in named
        ],
        "head": [_totals(name, by_layer[name]) for name in by_layer if name not in dict(named)],
    }


def _describe_layer(name: str, spec: specs.LayerSpec, placed: list[PlacedOp]) -> dict[str, Any]:
    fields = dataclasses.asdict(spec)
    for standard in ("filters", "kernel_size", "strides"):
        del fields[standard]
    return (
        {"op": spec.op, "kernel": spec.kernel_size, "stride": spec.strides} | _totals(name, placed) | fields
    )


def _totals(name: str, placed: list[PlacedOp]) -> dict[str, Any]:
    first, last = placed[0].op, placed[-1].op
    return {
        "name": name,
        "in_channels": first.in_channels,
        "out_channels": last.out_channels,
        "out_size": list(placed[-1].out_size),
        "params": params(placed),
        "madds": madds(placed),
    }
