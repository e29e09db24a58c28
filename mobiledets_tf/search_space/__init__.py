"""Search spaces as plain data: decisions, sampling, encoding and size. TensorFlow is not imported."""

from mobiledets_tf.search_space.encoding import decode, encode
from mobiledets_tf.search_space.one_of import OneOf, map_one_ofs, on_path, one_ofs, select, size
from mobiledets_tf.search_space.options import SKIP, LayerOption
from mobiledets_tf.search_space.positions import Position, op_positions
from mobiledets_tf.search_space.sampling import check_decisions, sample
from mobiledets_tf.search_space.spaces import (
    SPACES,
    SearchBlock,
    SearchLayer,
    SearchSpace,
    get_space,
    stored_space,
)

__all__ = [
    "SKIP",
    "SPACES",
    "LayerOption",
    "OneOf",
    "Position",
    "SearchBlock",
    "SearchLayer",
    "SearchSpace",
    "check_decisions",
    "decode",
    "encode",
    "get_space",
    "map_one_ofs",
    "on_path",
    "one_ofs",
    "op_positions",
    "sample",
    "select",
    "size",
    "stored_space",
]
