"""Label files, as each reader takes them."""

import pytest

from mobiledets_tf.data import records
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import trained_network
from tflite_export.tflite import labels

NAMES = ("7 up", "Stern, groß", "10: ten", "cat")
READERS = ("pycoral_labels", "frigate_labels", "doods_labels")


@pytest.mark.parametrize("read", READERS)
def test_every_reader_takes_the_indexed_file_alike(read, clients):
    assert getattr(clients, read)(labels.indexed(NAMES)) == dict(enumerate(NAMES))


@pytest.mark.parametrize("read", READERS)
def test_a_class_without_a_name_has_no_line(read, clients):
    names = ("cat", labels.NO_NAME, "dog")
    assert labels.indexed(names) == "0  cat\n2  dog\n"
    assert getattr(clients, read)(labels.indexed(names)) == {0: "cat", 2: "dog"}


def test_plain_files_are_misread_where_we_say_so(clients):
    assert labels.misread(NAMES) == ["7 up", "10: ten"]
    assert clients.pycoral_labels(labels.plain(NAMES)) != dict(enumerate(NAMES))
    with pytest.raises(ValueError):
        clients.frigate_labels(labels.plain(NAMES))
    assert labels.misread(("2nd", "7", "cat 3")) == []
    assert clients.pycoral_labels("2nd\n7\ncat 3\n") == {0: "2nd", 1: "7", 2: "cat 3"}


@pytest.mark.parametrize("write", [labels.plain, labels.indexed])
def test_both_files_come_back(write, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text(write(NAMES), encoding="utf-8")
    assert labels.read(path, 4) == NAMES


def test_coral_s_own_files_are_read(tmp_path):
    path = tmp_path / "coco_labels.txt"
    path.write_text("0  person\n1  bicycle\n3  car\n")
    assert labels.read(path, 5) == ("person", "bicycle", "???", "car", "???")
    path.write_text("???\nperson\nbicycle\n")
    assert labels.read(path, 2) == ("person", "bicycle")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file contains no names"),
        (b"cat\ndog\n", "2 names, but the model has 3 classes"),
        (b"a\nb\nc\nd\n", "4 names, but the model has 3 classes"),
        (b"cat\ndog\ncat\n", "classes 1, 3 are all named 'cat'"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"0 a\n999999 b\n", "class id 999999"),
    ],
)
def test_faults_are_named(content, words, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        labels.read(path, 3)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({1: "cat", 2: "dog", 3: "cat"}, "classes 1, 3 are all named"),
        ({1: "cat", 2: " ", 3: "dog"}, "class 2 is empty"),
    ],
)
def test_an_export_refuses_names_that_cannot_be_told_apart(names, words, training, tmp_path):
    for file in training.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    records.write_label_map(tmp_path / "label_map.pbtxt", names)
    with pytest.raises(InputError, match=words):
        trained_network.resolve(checkpoint=str(tmp_path))
