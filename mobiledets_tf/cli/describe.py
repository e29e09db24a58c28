"""`mobiledets-describe`: prints layers, parameters and multiply-adds of a detector without TensorFlow."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from mobiledets_tf import architecture
from mobiledets_tf.cli import app
from mobiledets_tf.errors import InputError

FLAGS = flags.FlagValues()

flags.DEFINE_string(
    "architecture",
    None,
    "Published network (cpu, edgetpu, dsp, gpu) or an architecture file (.json).",
    flag_values=FLAGS,
)
flags.DEFINE_integer("num_classes", 90, "Number of classes without the background.", flag_values=FLAGS)
flags.DEFINE_integer("image_size", 320, "Side of the square input image, in pixels.", flag_values=FLAGS)
flags.DEFINE_float(
    "depth_multiplier",
    1.0,
    "Factor for all widths; each product is rounded to a multiple of 8.",
    flag_values=FLAGS,
)
flags.DEFINE_enum("format", "text", ["text", "json"], "Output format.", flag_values=FLAGS)
flags.DEFINE_string(
    "picture",
    None,
    "Also draw the network into this .png file, with each block's type and width.",
    flag_values=FLAGS,
)
flags.mark_flag_as_required("architecture", flag_values=FLAGS)

DESCRIPTION = """
Prints the layers, parameters and multiply-adds of a detector.

  mobiledets-describe --architecture=edgetpu
  mobiledets-describe --architecture=runs/search/architecture.json --num_classes=10 --format=json
  mobiledets-describe --architecture=edgetpu --picture=edgetpu.png
"""

_COLUMNS = ("layer", "op", "kernel", "stride", "in", "out", "size", "params", "madds", "notes")
_LEFT = {"layer", "op", "notes"}


def main() -> None:
    """Prints the description of a detector to stdout and draws the network if --picture is given."""
    if FLAGS.picture is not None and not FLAGS.picture.endswith(".png"):
        raise InputError(f"--picture={FLAGS.picture}; allowed: a file name that ends in .png")
    network = architecture.load(FLAGS.architecture).scaled(FLAGS.depth_multiplier)
    description = architecture.describe(network, FLAGS.num_classes, FLAGS.image_size)
    print(json.dumps(description, indent=1) if FLAGS.format == "json" else as_text(description))
    if FLAGS.picture is not None:
        from mobiledets_tf.architecture import drawing

        drawing.draw([network], FLAGS.picture, FLAGS.image_size, FLAGS.num_classes)


def as_text(description: dict[str, Any]) -> str:
    """Formats a description as aligned text: a table of the layers and the head, then the totals."""
    layers = [_layer_row(layer) for layer in description["layers"]]
    head = [_row(part) for part in description["head"]]
    return "\n".join([*_table(_COLUMNS, layers + head), "", *_totals(description)])


def _row(part: dict[str, Any]) -> dict[str, str]:
    return {
        "layer": part["name"],
        "in": str(part["in_channels"]),
        "out": str(part["out_channels"]),
        "size": "x".join(map(str, part["out_size"])),
        "params": f"{part['params']:,}",
        "madds": f"{part['madds']:,}",
    }


def _layer_row(layer: dict[str, Any]) -> dict[str, str]:
    return _row(layer) | {
        "op": layer["op"],
        "kernel": str(layer["kernel"]),
        "stride": str(layer["stride"]),
        "notes": ", ".join(_notes(layer)),
    }


def _notes(layer: dict[str, Any]) -> list[str]:
    """Returns the special properties of a layer: expansion or ratios, residual, endpoint."""
    notes = []
    if "expansion" in layer:
        notes.append(f"expansion {layer['expansion']}")
    if "in_ratio" in layer:
        notes.append(f"ratios {layer['in_ratio']:g}/{layer['out_ratio']:g}")
    if layer["residual"]:
        notes.append("residual")
    if layer["endpoint"]:
        notes.append(layer["endpoint"])
    return notes


def _table(columns: Sequence[str], rows: list[dict[str, str]]) -> list[str]:
    rows = [{column: column for column in columns}, *rows]
    widths = {column: max(len(row.get(column, "")) for row in rows) for column in columns}
    return ["  ".join(_cell(column, row, widths[column]) for column in columns).rstrip() for row in rows]


def _cell(column: str, row: dict[str, str], width: int) -> str:
    text = row.get(column, "")
    return text.ljust(width) if column in _LEFT else text.rjust(width)


def _totals(description: dict[str, Any]) -> list[str]:
    height, width = description["image_size"]
    se_ratio = description["se_ratio"]
    maps = (f"{m['name']} {m['height']}x{m['width']}x{m['channels']}" for m in description["feature_maps"])
    squeeze_excite = "" if se_ratio is None else f", squeeze-excite {se_ratio:g}"
    facts = {
        "network": f"{description['name']}, {description['num_classes']} classes, {height}x{width} pixels",
        "activation": f"{description['activation']}{squeeze_excite}",
        "feature maps": ", ".join(maps),
        "anchors": f"{description['anchors']:,}",
        "parameters": f"{description['params']:,} ({description['trainable_params']:,} trainable)",
        "multiply-adds": f"{description['madds']:,}",
    }
    return [f"{name:<14} {fact}" for name, fact in facts.items()]


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
