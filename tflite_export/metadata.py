"""TFLite metadata: what a task library needs to know of a detector, inside the file itself.

The file gets a metadata buffer (labels, normalisation, score threshold, the order of a box) and
labels.txt as a zip archive at its end, where Android's and MediaPipe's libraries look for both.
Schema: `tensorflow_lite_support/metadata/metadata_schema.fbs` of tensorflow/tflite-support; its
own writers do not fit the versions of this project, so the few tables are built here.
"""

import io
import zipfile
from collections.abc import Iterable, Sequence

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from tflite_export.postprocess import DETECTION_OUTPUTS, RAW_OUTPUTS

LABELS = "labels.txt"
ENTRY = b"TFLITE_METADATA"
IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"
# Pixels 0..255 to the [-1, 1] of the network.
_MEAN = _STD = 127.5
_RGB, _BOUNDARIES, _RATIO = 1, 1, 0
_VALUE_LABELS = 3
# Members of the schema's unions.
_FEATURE, _IMAGE, _BOXES = 1, 2, 3
_NORMALIZATION, _THRESHOLD = 1, 3
# (left, top, right, bottom) out of our (ymin, xmin, ymax, xmax).
_BOX_ORDER = (1, 0, 3, 2)
# Signature name -> the name that task libraries know an output by.
_NAMES = dict(zip(DETECTION_OUTPUTS, ("location", "category", "score", "number of detections"), strict=True))
_NAMES |= {name: name for name in RAW_OUTPUTS}


def add(model: bytes, labels: Sequence[str], name: str, score_threshold: float, version: str) -> bytes:
    """A detector with its metadata and labels.

    Args:
      model: a .tflite file of `tflite_export.convert`.
      labels: class names, the first for class 1.
      name: of the network.
      score_threshold: below which the file drops detections.
      version: of this project.
    """
    packed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    buffer = schema.BufferT()
    outputs = _outputs(packed)
    buffer.data = _Writer().finish(name, version, outputs, score_threshold)
    packed.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = ENTRY, len(packed.buffers) - 1
    packed.metadata = [*(packed.metadata or []), entry]
    builder = flatbuffers.Builder(len(model) + 2**16)
    builder.Finish(packed.Pack(builder), b"TFL3")
    return _with_archive(bytes(builder.Output()), {LABELS: "".join(f"{label}\n" for label in labels)})


def _outputs(packed) -> list[str]:
    """Signature names of the outputs, in the file's own order."""
    names = {entry.tensorIndex: entry.name.decode() for entry in packed.signatureDefs[0].outputs}
    return [names[index] for index in packed.subgraphs[0].outputs]


def _with_archive(model: bytes, files: dict[str, str]) -> bytes:
    stream = io.BytesIO(model)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, content in files.items():
            # The default date keeps equal exports equal.
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


class _Writer:
    """Tables of the metadata schema. Fields are given by their place in the schema."""

    def __init__(self):
        self.builder = flatbuffers.Builder(1024)

    def finish(self, name: str, version: str, outputs: list[str], threshold: float) -> bytes:
        tensors = [self._output(output, threshold) for output in outputs]
        subgraph = self._table({2: self._list([self._image()]), 3: self._list(tensors)})
        model = self._table({
            0: self._text(name), 1: self._text("MobileDets object detector"), 2: self._text(version),
            3: self._list([subgraph]), 7: self._text(_PARSER_VERSION),
        })  # fmt: skip
        self.builder.Finish(model, IDENTIFIER)
        return bytes(self.builder.Output())

    def _image(self) -> int:
        scale = self._table({0: self._floats([_MEAN]), 1: self._floats([_STD])})
        stats = self._table({0: self._floats([255.0]), 1: self._floats([0.0])})
        return self._table({
            0: self._text("image"), 1: self._text("RGB image"),
            3: self._content(_IMAGE, self._table({}, {0: (_RGB, "Int8")})),
            4: self._list([self._unit(_NORMALIZATION, scale)]), 5: stats,
        })  # fmt: skip

    def _output(self, output: str, threshold: float) -> int:
        fields = {0: self._text(_NAMES[output])}
        if output == "boxes":
            boxes = self._table(
                {0: self._numbers(_BOX_ORDER)}, {1: (_BOUNDARIES, "Int8"), 2: (_RATIO, "Int8")}
            )
            span = self._table({}, {0: (2, "Int32"), 1: (2, "Int32")})
            fields[3] = self._content(_BOXES, boxes, span)
        else:
            fields[3] = self._content(_FEATURE, self._table({}))
        if output == "classes":
            file = self._table({0: self._text(LABELS)}, {2: (_VALUE_LABELS, "Int8")})
            fields[6] = self._list([file])
        if output == "scores":
            limit = self._table({}, {0: (threshold, "Float32")})
            fields[4] = self._list([self._unit(_THRESHOLD, limit)])
        return self._table(fields)

    def _content(self, kind: int, properties: int, span: int | None = None) -> int:
        offsets = {1: properties} | ({2: span} if span is not None else {})
        return self._table(offsets, {0: (kind, "Uint8")})

    def _unit(self, kind: int, options: int) -> int:
        return self._table({1: options}, {0: (kind, "Uint8")})

    def _table(self, offsets: dict[int, int], scalars: dict[int, tuple[float, str]] | None = None) -> int:
        scalars = scalars or {}
        self.builder.StartObject(max((*offsets, *scalars), default=-1) + 1)
        for place, offset in offsets.items():
            self.builder.PrependUOffsetTRelativeSlot(place, offset, 0)
        for place, (value, kind) in scalars.items():
            getattr(self.builder, f"Prepend{kind}Slot")(place, value, 0)
        return self.builder.EndObject()

    def _text(self, value: str) -> int:
        return self.builder.CreateString(value)

    def _list(self, offsets: Sequence[int]) -> int:
        return self._vector(offsets, self.builder.PrependUOffsetTRelative)

    def _floats(self, values: Sequence[float]) -> int:
        return self._vector(values, self.builder.PrependFloat32)

    def _numbers(self, values: Sequence[int]) -> int:
        return self._vector(values, self.builder.PrependUint32)

    def _vector(self, values: Sequence, prepend) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            prepend(value)
        return self.builder.EndVector()


def labels_of(model: bytes) -> list[str] | None:
    """The labels packed with a file, or None."""
    stream = io.BytesIO(model)
    if not zipfile.is_zipfile(stream):
        return None
    with zipfile.ZipFile(stream) as archive:
        found: Iterable[str] = archive.read(LABELS).decode("utf-8").splitlines()
    return list(found)
