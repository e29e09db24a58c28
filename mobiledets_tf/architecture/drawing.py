"""Draws networks with one bar per layer: colour and hatch show its type, length its output width.

The drawing follows figure 8 of MobileDets (arXiv 2004.14525). Hatches and labels repeat what the colours
say, so that it can be read in black and white. The colours are from the palette of Okabe and Ito, which
colour-blind readers can distinguish.
"""

import os
from collections.abc import Sequence
from typing import Any

from mobiledets_tf.architecture import specs
from mobiledets_tf.architecture.summary import describe
from mobiledets_tf.files import atomic_path

# op: (name in the legend, colour, hatch)
STYLES = {
    "conv": ("convolution", "white", ""),
    "dwsep_no_expansion": ("depthwise separable", "#f0e442", "..."),
    "ibn": ("inverted bottleneck", "#56b4e9", "////"),
    "fused": ("fused inverted bottleneck", "#e69f00", ""),
    "tucker": ("Tucker", "#009e73", "xxx"),
}
_SIGNS = "/2 stride, e8 expansion, 0.25-0.75 Tucker ratios, → output width, + residual"
_BAR, _LABEL_AT, _COLUMN_INCHES, _ROW_INCHES = 0.78, 4, 3.1, 0.21


def draw(
    networks: Sequence[specs.Architecture],
    path: str | os.PathLike,
    image_size: int | tuple[int, int] = 320,
    num_classes: int = 90,
) -> None:
    """Writes a PNG with one column per network, atomically.

    Args:
      networks: one or more networks.
      path: path of the PNG file.
      image_size: side of the input or (height, width), in pixels; it sets the map sizes beside the bars.
      num_classes: number of classes without the background; it enters the counts in the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn = figure(networks, image_size, num_classes)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(drawn).print_png(temporary)


def figure(
    networks: Sequence[specs.Architecture], image_size: int | tuple[int, int], num_classes: int
) -> Any:
    """Returns the matplotlib figure that `draw` writes: one axes per network, one rectangle per layer."""
    # Unlike pyplot, a bare Figure needs no window system and does not touch global state.
    from matplotlib.figure import Figure

    described = [describe(network, num_classes, image_size) for network in networks]
    rows = max(len(network["layers"]) for network in described)
    size = (max(2, len(described)) * _COLUMN_INCHES, _ROW_INCHES * rows + 1.5)
    page = Figure(figsize=size, layout="constrained", dpi=110)
    widest = max(layer["out_channels"] for network in described for layer in network["layers"])
    for axis, network in zip(page.subplots(1, len(described), squeeze=False)[0], described, strict=True):
        _column(axis, network, rows, widest)
    used = [op for op in STYLES if any(layer["op"] == op for n in described for layer in n["layers"])]
    handles = [_patch((0, 0), 1, 1, op) for op in used]
    words = [STYLES[op][0] for op in used]
    page.legend(
        handles,
        words,
        loc="outside lower center",
        ncols=len(used) if len(described) > 2 else 2,
        frameon=False,
        fontsize=8,
        handleheight=1.2,
        title=_SIGNS,
        title_fontsize=7,
    )
    return page


def layer_text(layer: dict) -> str:
    """Returns the label of a layer of `describe`: kernel, stride, expansion or ratios, width, endpoint."""
    parts = [f"{layer['kernel']}x{layer['kernel']}"]
    if layer["stride"] != 1:
        parts.append(f"/{layer['stride']}")
    if "expansion" in layer:
        parts.append(f"e{layer['expansion']}")
    if "in_ratio" in layer:
        parts.append(f"{layer['in_ratio']:g}-{layer['out_ratio']:g}")
    parts.append(f"→ {layer['out_channels']}")
    if layer["residual"]:
        parts.append("+")
    if layer["endpoint"] in specs.ENDPOINT_STRIDES:
        parts.append(f"{layer['endpoint']} to the head")
    return " ".join(parts)


def _column(axis: Any, network: dict, rows: int, widest: int) -> None:
    height, width = network["image_size"]
    counts = f"{network['params'] / 1e6:.2f} M parameters, {network['madds'] / 1e9:.2f} G multiply-adds"
    title = f"{network['name']}\n{counts}\n{network['num_classes']} classes, {height}x{width}"
    axis.set_title(title, fontsize=8, parse_math=False)
    size_before = None
    for row, layer in enumerate(network["layers"]):
        axis.add_patch(_patch((0, row - _BAR / 2), layer["out_channels"], _BAR, layer["op"]))
        axis.text(layer["out_channels"] + _LABEL_AT, row, layer_text(layer), fontsize=6.5, va="center")
        size = "x".join(map(str, layer["out_size"]))
        if size != size_before:
            axis.axhline(row - 0.5, color="0.6", linewidth=0.6, zorder=0)
            axis.text(-_LABEL_AT, row, size, fontsize=6.5, va="center", ha="right")
        size_before = size
    # Leave room on the right for the label after the longest bar.
    axis.set(xlim=(-0.02 * widest, widest * 2), ylim=(rows - 0.4, -0.6))
    axis.set_axis_off()


def _patch(corner: tuple[float, float], width: float, height: float, op: str) -> Any:
    from matplotlib.patches import Rectangle

    _, color, hatch = STYLES[op]
    return Rectangle(corner, width, height, facecolor=color, hatch=hatch, edgecolor="black", linewidth=0.7)
