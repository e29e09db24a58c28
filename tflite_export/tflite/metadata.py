"""Writes TFLite metadata, which describes a detector to task libraries, into the file itself.

The file gets a metadata buffer (labels, normalisation, score threshold, order of box coordinates) and
both label files in a zip archive at its end, where Android's and MediaPipe's libraries look for them.
Schema: `tensorflow_lite_support/metadata/metadata_schema.fbs` of tensorflow/tflite-support. Its own
writers are incompatible with the versions that this project uses, so the few tables are built here.
"""

import io
import zipfile
import zlib
from collections.abc import Callable, Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobiledets_tf.errors import InputError
from tflite_export.tflite import flatbuffer, labels, layout
from tflite_export.tflite.layout import DETECTION_OUTPUTS, RAW_OUTPUTS

ENTRY = b"TFLITE_METADATA"
IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"
# Limits on the bytes of an archived file and on the number of files read; label files are small.
_MAX_ARCHIVED, _MAX_FILES = 2**24, 16
# Converts pixels 0..255 to the network's [-1, 1].
_MEAN = _STD = 127.5
_RGB, _BOUNDARIES, _RATIO = 1, 1, 0
_VALUE_LABELS = 3
# Numbers of the members in the schema's unions.
_FEATURE, _IMAGE, _BOXES = 1, 2, 3
_NORMALIZATION, _THRESHOLD = 1, 3
# Indices of (left, top, right, bottom) in (ymin, xmin, ymax, xmax).
_BOX_ORDER = (1, 0, 3, 2)
# Maps a signature name to the name that task libraries use for the output.
_NAMES = dict(zip(DETECTION_OUTPUTS, ("location", "category", "score", "number of detections"), strict=True))
_NAMES |= {name: name for name in RAW_OUTPUTS}


def add(model: bytes, names: Sequence[str], name: str, score_threshold: float, version: str) -> bytes:
    """Returns a detector with its metadata and labels, which replace any that it has.

    Args:
      model: a .tflite file of `export.convert`, or any other with a post-process op.
      names: class names, starting with class 1.
      name: name of the network.
      score_threshold: score below which the file drops detections.
      version: version of this project.

    Raises:
      InputError: the outputs are not those of a detector.
    """
    unpacked = flatbuffer.unpack(model)
    _put(unpacked, _Writer().finish(name, version, _outputs(unpacked), score_threshold))
    return _with_archive(flatbuffer.pack(unpacked), archive(names))


def archive(names: Sequence[str]) -> dict[str, str]:
    """Returns the label files to be archived inside a detector, by name."""
    return {labels.PLAIN: labels.plain(names), labels.INDEXED: labels.indexed(names)}


def restored(compiled: bytes, source: bytes) -> bytes:
    """Restores what the compiler dropped: output order, signature, metadata and labels.

    Args:
      compiled: the output of `edgetpu_compiler` for `source`.
      source: any file with a post-process op; without one the signature is not restored.
    """
    made, origin = flatbuffer.unpack(compiled), flatbuffer.unpack(source)
    layout.follow(made, origin)
    if (data := _data(origin)) is not None:
        _put(made, data)
    packed = flatbuffer.pack(made)
    files = _files(source)
    return _with_archive(packed, files) if files else packed


def _put(model: schema.ModelT, data: bytes) -> None:
    """Adds the metadata buffer, or replaces an existing one."""
    entries = [entry for entry in model.metadata or [] if entry.name == ENTRY]
    if not entries:
        entry = schema.MetadataT()
        entry.name, entry.buffer = ENTRY, len(model.buffers)
        model.buffers.append(schema.BufferT())
        model.metadata, entries = [*(model.metadata or []), entry], [entry]
    model.buffers[entries[0].buffer].data = np.frombuffer(data, np.uint8)


def _data(model: schema.ModelT) -> bytes | None:
    entries = [entry for entry in model.metadata or [] if entry.name == ENTRY]
    data = model.buffers[entries[0].buffer].data if entries else None
    return None if data is None else bytes(np.asarray(data, np.uint8))


def _outputs(model: schema.ModelT) -> list[str]:
    """Returns this project's names of the outputs, in the file's own order."""
    op = layout.post_process_of(model)
    if op is not None:
        names = dict(zip(map(int, op.outputs), DETECTION_OUTPUTS, strict=False))
    else:
        entries = model.signatureDefs[0].outputs if model.signatureDefs else []
        names = {entry.tensorIndex: entry.name.decode() for entry in entries}
    found = [names.get(int(index), "") for index in model.subgraphs[0].outputs]
    if set(found) not in (set(DETECTION_OUTPUTS), set(RAW_OUTPUTS)):
        raise InputError("the outputs are not those of a detector, which metadata can describe")
    return found


def _with_archive(model: bytes, files: dict[str, str]) -> bytes:
    stream = io.BytesIO(model)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, content in files.items():
            # With the default date, equal exports have equal bytes.
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


class _Writer:
    """Writes tables of the metadata schema. Fields are identified by their position in the schema."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def finish(self, name: str, version: str, outputs: list[str], threshold: float) -> bytes:
        tensors = [self._output(output, threshold) for output in outputs]
        subgraph = self._table({2: self._list([self._image()]), 3: self._list(tensors)})
        extra = self._table({0: self._text(labels.INDEXED), 1: self._text("class ids with their names")})
        model = self._table(
            {
                0: self._text(name),
                1: self._text("MobileDets object detector"),
                2: self._text(version),
                3: self._list([subgraph]),
                6: self._list([extra]),
                7: self._text(_PARSER_VERSION),
            }
        )
        self.builder.Finish(model, IDENTIFIER)
        return bytes(self.builder.Output())

    def _image(self) -> int:
        scale = self._table({0: self._floats([_MEAN]), 1: self._floats([_STD])})
        stats = self._table({0: self._floats([255.0]), 1: self._floats([0.0])})
        return self._table(
            {
                0: self._text("image"),
                1: self._text("RGB image"),
                3: self._content(_IMAGE, self._table({}, {0: (_RGB, "Int8")})),
                4: self._list([self._unit(_NORMALIZATION, scale)]),
                5: stats,
            }
        )

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
            file = self._table({0: self._text(labels.PLAIN)}, {2: (_VALUE_LABELS, "Int8")})
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

    def _vector(self, values: Sequence, prepend: Callable) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            prepend(value)
        return self.builder.EndVector()


def _files(model: bytes) -> dict[str, str]:
    """Returns the text files archived with a model; empty if there is no archive or it is damaged."""
    stream = io.BytesIO(model)
    if not zipfile.is_zipfile(stream):
        return {}
    found = {}
    try:
        with zipfile.ZipFile(stream) as packed:
            for info in packed.infolist()[:_MAX_FILES]:
                if info.file_size <= _MAX_ARCHIVED:
                    found[info.filename] = packed.read(info).decode("utf-8")
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, RuntimeError, zlib.error):
        return {}
    return found


def labels_of(model: bytes) -> list[str] | None:
    """Returns the labels archived in any file, or None. Ids without a name are `???`."""
    files = {name: text for name, text in _files(model).items() if name.endswith(".txt")}
    # An archive from elsewhere contains a single text file of any name.
    name = labels.PLAIN if labels.PLAIN in files else next(iter(files), None)
    return None if name is None else [line.strip() for line in files[name].splitlines()]
