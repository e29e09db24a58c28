"""Metadata in a file: read back field by field, and the network is the same."""

import io
import zipfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table

from tflite_export.tflite import metadata, model_file, runtime

LABELS = ["circle", "Stern, groß", "???"]


@pytest.fixture(scope="module")
def files(tflite, tmp_path_factory):
    """(the file before, the file with metadata)."""
    before = tflite("int8", "uint8")
    after = tmp_path_factory.mktemp("metadata") / "detector.tflite"
    after.write_bytes(metadata.add(before.read_bytes(), LABELS, "edgetpu", 0.25, "9.9"))
    return before, after


class Node:
    """A table of any schema, read by places: an oracle that shares no code with the writer."""

    def __init__(self, data, position):
        self.table = Table(data, position)

    def _at(self, place):
        offset = self.table.Offset(4 + 2 * place)
        return offset and offset + self.table.Pos

    def text(self, place):
        return self.table.String(self._at(place)).decode()

    def node(self, place):
        at = self._at(place)
        return Node(self.table.Bytes, self.table.Indirect(at)) if at else None

    def number(self, place, flags=number_types.Int8Flags):
        at = self._at(place)
        return self.table.Get(flags, at) if at else 0

    def items(self, place):
        offset = self.table.Offset(4 + 2 * place)
        start, count = self.table.Vector(offset), self.table.VectorLen(offset)
        return [Node(self.table.Bytes, self.table.Indirect(start + 4 * i)) for i in range(count)]

    def values(self, place, flags):
        offset = self.table.Offset(4 + 2 * place)
        start, count = self.table.Vector(offset), self.table.VectorLen(offset)
        return [self.table.Get(flags, start + 4 * i) for i in range(count)]


@pytest.fixture(scope="module")
def root(files):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(files[1].read_bytes(), 0))
    (entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    data = bytes(model.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    return Node(data, encode.Get(packer.uoffset, data, 0))


def test_the_image_says_its_normalisation(root):
    (subgraph,) = root.items(3)
    (image,) = subgraph.items(2)
    assert (root.text(0), root.text(2), root.text(7)) == ("edgetpu", "9.9", "1.0.0")
    content = image.node(3)
    assert content.number(0, number_types.Uint8Flags) == 2  # ImageProperties
    assert content.node(1).number(0) == 1  # RGB
    (unit,) = image.items(4)
    assert unit.number(0, number_types.Uint8Flags) == 1  # NormalizationOptions
    assert unit.node(1).values(0, number_types.Float32Flags) == [127.5]
    assert unit.node(1).values(1, number_types.Float32Flags) == [127.5]


def test_outputs_are_described_in_the_order_of_the_file(root, files):
    (subgraph,) = root.items(3)
    outputs = {tensor.text(0): tensor for tensor in subgraph.items(3)}
    assert set(outputs) == {"location", "category", "score", "number of detections"}
    shapes = [tensor.shape for tensor in model_file.read(files[1]).outputs]
    assert shapes[list(outputs).index("location")] == (1, 100, 4)
    assert shapes[list(outputs).index("number of detections")] == (1,)
    boxes = outputs["location"].node(3)
    assert boxes.number(0, number_types.Uint8Flags) == 3  # BoundingBoxProperties
    assert boxes.node(1).values(0, number_types.Uint32Flags) == [1, 0, 3, 2]
    assert boxes.node(1).number(1) == 1  # BOUNDARIES
    assert boxes.node(2).number(0, number_types.Int32Flags) == 2
    (file,) = outputs["category"].items(6)
    assert (file.text(0), file.number(2)) == ("labels.txt", 3)
    (unit,) = outputs["score"].items(4)
    assert unit.number(0, number_types.Uint8Flags) == 3  # ScoreThresholdingOptions
    assert unit.node(1).number(0, number_types.Float32Flags) == 0.25


def test_labels_are_a_zip_archive_at_the_end(files):
    data = files[1].read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["labels.txt", "labels_indexed.txt"]
        assert archive.read("labels.txt").decode() == "circle\nStern, groß\n???\n"
        assert archive.read("labels_indexed.txt").decode() == "0  circle\n1  Stern, groß\n"
        assert archive.testzip() is None
    assert metadata.labels_of(data) == LABELS
    assert metadata.labels_of(files[0].read_bytes()) is None


def test_the_network_is_the_same_and_so_is_a_second_file(files):
    before, after = (model_file.read(path) for path in files)
    assert after.histogram() == before.histogram()
    assert after.signatures == before.signatures
    again = metadata.add(files[0].read_bytes(), LABELS, "edgetpu", 0.25, "9.9")
    assert again == files[1].read_bytes()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, before.inputs[0].shape).astype(np.uint8)
    outputs = [runtime.open_model(path).get_signature_runner()(image=image) for path in files]
    for name, values in outputs[0].items():
        np.testing.assert_array_equal(outputs[1][name], values)


def test_raw_outputs_keep_their_names(tflite):
    data = metadata.add(tflite("int8", "int8", "none").read_bytes(), LABELS, "edgetpu", 0.25, "9.9")
    assert model_file.parse(data).signatures["serving_default"]["outputs"] == ["class_scores", "raw_boxes"]
