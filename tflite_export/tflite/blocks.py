"""Maps a tensor of a .tflite file back to the part of the architecture that it comes from."""

import re

from tflite_export.tflite.model_file import Operator, Tensor

# Matches layer names of `mobiledets_tf.models`, which the converter copies into tensor names. Any
# text after a further underscore names a layer within the part.
_PART = re.compile(
    r"(?<![A-Za-z0-9])"
    r"(stem|block\d+_layer\d+|extra\d+|predictor\d+_(?:box|class)|raw_boxes|class_logits)"
    r"(?![A-Za-z0-9])"
)


def of_name(name: str) -> str | None:
    """Returns the first part of the architecture that a tensor name mentions, or None."""
    found = _PART.search(name)
    return found[1] if found else None


def of_operator(op: Operator) -> str | None:
    """Returns the part that an operation belongs to, by the names of its outputs or else its inputs."""
    tensors: tuple[Tensor, ...] = (*op.outputs, *op.inputs)
    return next((part for part in map(of_name, (t.name for t in tensors)) if part), None)
