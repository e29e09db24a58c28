"""The operations that `edgetpu_compiler` 16.0.384591198 is known to map, each with its sources.

This is the last version of the compiler (2021). It is closed source and has no machine-readable table.
Coral's own table of operations is no longer completely available, so the rows come from copies of it;
`docs/edgetpu_operations.md` states what is known of each, and what is not. If the compiler is installed,
its own count decides.

The newest version of each operation is the one in TensorFlow 2.5 (`runtime_version.cc`), which compiler
16 contains: it rejects CONV_2D 6 (from 2.9) and TRANSPOSE_CONV 4 (from 2.13; google-coral/edgetpu issue
845).
"""

import dataclasses

COMPILER = "16.0.384591198"
# Meaning of the letters in `Row.sources`.
SOURCES = {
    "A": "Coral's table as Axis publishes it for ARTPEC-7: names and limitations "
    "(developer.axis.com, computer-vision/on-device/system-on-chip/artpec-7/supported-ops)",
    "B": "Coral's table of 2019: names and limitations (dgist-datalab/Datalab_Intern, "
    "Edge_TPU/convert_model_for_Edge_TPU.md)",
    "C": "names of Coral's table in September 2024, without limitations (the article 'More Coral' of the "
    "author of dragynfruit/edged)",
    "D": "Coral's release notes of runtime 13 (google-coral/edgetpu, CHANGES.md)",
    "E": "a maintainer: 'Compiler version 16 supports Transpose' (google-coral/edgetpu issue 193)",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """Knowledge about one operation.

    Attributes:
      version: newest version of the operation in TFLite that the compiler reads.
      sources: keys of `SOURCES`.
      runtime: first version of the Edge TPU runtime that has it, where a source says so.
    """

    version: int
    sources: str
    runtime: int | None = None

    @property
    def has_limits(self) -> bool:
        """Whether a source lists limitations; otherwise a file may pass the check and yet stay on the CPU."""
        return bool({"A", "B"} & set(self.sources))


ROWS = {
    "ADD": Row(3, "AC"),
    "AVERAGE_POOL_2D": Row(3, "AC"),
    "CONCATENATION": Row(3, "AC"),
    "CONV_2D": Row(5, "AC"),
    "DEPTHWISE_CONV_2D": Row(6, "AC"),
    "EXPAND_DIMS": Row(1, "ACD", 13),
    "FULLY_CONNECTED": Row(9, "AC"),
    "L2_NORMALIZATION": Row(2, "AC"),
    "LOGISTIC": Row(3, "AC"),
    "MAXIMUM": Row(4, "AC"),
    "MAX_POOL_2D": Row(3, "AC"),
    "MEAN": Row(3, "AC"),
    "MINIMUM": Row(4, "AC"),
    "MUL": Row(4, "AC"),
    "PACK": Row(3, "ACD", 13),
    "PAD": Row(3, "AC"),
    "PRELU": Row(1, "AC"),
    "QUANTIZE": Row(2, "ACD", 13),
    "REDUCE_MAX": Row(3, "AC"),
    "REDUCE_MIN": Row(3, "AC"),
    "RELU": Row(3, "AC"),
    "RELU6": Row(3, "AC"),
    "RELU_N1_TO_1": Row(1, "AC"),
    "RESHAPE": Row(1, "AC"),
    "RESIZE_BILINEAR": Row(4, "AC"),
    "RESIZE_NEAREST_NEIGHBOR": Row(4, "BC"),
    "RSQRT": Row(2, "C"),
    "SLICE": Row(5, "BC"),
    "SOFTMAX": Row(3, "BC"),
    "SPACE_TO_DEPTH": Row(2, "BC"),
    "SPLIT": Row(4, "BC"),
    "SQUARED_DIFFERENCE": Row(2, "C"),
    "SQUEEZE": Row(2, "BC"),
    "STRIDED_SLICE": Row(5, "BC"),
    "SUB": Row(5, "BC"),
    "SUM": Row(2, "CD", 13),
    "TANH": Row(3, "BC"),
    "TRANSPOSE": Row(5, "CE"),
    "TRANSPOSE_CONV": Row(3, "CD", 13),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Row(3, "AC"),
}
