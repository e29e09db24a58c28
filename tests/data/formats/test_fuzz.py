"""Damaged annotations of every format: one line or success, never a traceback, nothing half-written.

MOBILEDETS_FUZZ=2500 runs so many inputs of each format.
"""

import copy
import json
import random

import pytest

from mobiledets_tf.cli import data as command

FORMATS = ("voc", "yolo", "cvat", "labelme", "label_studio", "roboflow", "coco")
_PIECES = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"<",
    b"</object>",
    b"<!DOCTYPE x>",
    b"<!ENTITY a 'b'>",
    b"&a;",
    b"nan",
    b"-1",
    b"1e999",
    b"{",
    b"[",
    b"null",
    b'""',
    b"true",
    b"../../x",
    b"9" * 400,
    b": &a [*a]",
    b"\xed\xa0\x80",
    b"\n",
    b" ",
    b"0.0",
    b'"\\ud800"',
    b"<box/>",
    b"names: 3\n",
    b"item {",
    b"id: -1",
)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """One to four cuts, repeats or insertions of pieces that readers stumble over."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice((0, 1, 3, 20, 200)))
        kind = rng.random()
        middle = rng.choice(_PIECES) if kind < 0.6 else data[start:end] * 2 if kind < 0.8 else b""
        data = data[:start] + middle + data[end:]
    return data if rng.random() < 0.95 else data[: rng.randrange(len(data) + 1)]


_VALUES = (
    None,
    True,
    -1,
    0.5,
    1e308,
    float("nan"),
    10**400,
    "",
    "x",
    "../../x",
    "\0",
    [],
    {},
    [None] * 4,
    [[]],
    {"id": 1},
    "9" * 500,
)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A JSON file that stays one: a value somewhere in it is replaced, removed or repeated."""
    value = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        parent, key, part = None, None, value
        while isinstance(part, (dict, list)) and part and (parent is None or rng.random() < 0.9):
            parent, key = part, rng.choice(list(part) if isinstance(part, dict) else range(len(part)))
            part = part[key]
        if parent is None:
            continue
        action = rng.random()
        if action < 0.7:
            parent[key] = copy.deepcopy(rng.choice(_VALUES))
        elif action < 0.9:
            del parent[key]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(part))
    return json.dumps(value).encode()


def _run(folder, output, capsys, name):
    code = command.run(
        [
            "mobiledets-data",
            "--mode=convert",
            f"--images={folder}",
            f"--output_dir={output}",
            f"--format={name}",
        ]
    )
    captured = capsys.readouterr()
    assert code in (0, 1, 2), code
    # Progress bars end in carriage returns; a message is one line.
    lines = [
        line for line in captured.err.replace("\r", "\n").split("\n") if "error:" in line or "failed:" in line
    ]
    assert len(lines) == (code != 0) and "Traceback" not in captured.err
    (captured.out + captured.err).encode()
    return code


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_annotations_end_in_one_line(name, writers, rounds, tmp_path, capsys):
    folder, output = tmp_path / "data", tmp_path / "records"
    rng = random.Random(FORMATS.index(name))
    writers.WRITERS[name](writers.Truth(rng, images=2, most_boxes=2), folder)
    files = [path for path in folder.rglob("*") if path.suffix not in (".jpg", "")]
    originals = {path: path.read_bytes() for path in files}
    codes = {0: 0, 1: 0, 2: 0}
    for _ in range(rounds):
        path = rng.choice(files)
        change = mutated if path.suffix == ".json" and rng.random() < 0.7 else damaged
        path.write_bytes(change(rng, originals[path]))
        before = sorted(each.name for each in tmp_path.iterdir())
        code = _run(folder, output, capsys, name)
        codes[code] += 1
        after = sorted(each.name for each in tmp_path.iterdir())
        assert after == sorted({*before, *(["records"] if code == 0 else [])})
        path.write_bytes(originals[path])
    assert codes[1] + codes[2] > rounds // 5 and sum(codes.values()) == rounds, codes


def test_damaged_label_maps_and_records_end_in_one_line(writers, rounds, pristine_records, tmp_path, capsys):
    folder, output = tmp_path / "data", tmp_path / "records"
    folder.mkdir()
    for path in pristine_records.iterdir():
        if path.suffix in (".tfrecord", ".pbtxt"):
            (folder / path.name).write_bytes(path.read_bytes())
    rng = random.Random(99)
    files = sorted(folder.iterdir())
    originals = {path: path.read_bytes() for path in files}
    codes = {0: 0, 1: 0, 2: 0}
    for _ in range(rounds):
        path = rng.choice([each for each in files if each.suffix == ".pbtxt"] * 3 + files)
        path.write_bytes(damaged(rng, originals[path]))
        codes[_run(folder, output, capsys, "tfrecord")] += 1
        path.write_bytes(originals[path])
    assert codes[1] + codes[2] > rounds // 5, codes


@pytest.fixture
def pristine_records(tmp_path_factory):
    """A converted set of drawn images."""
    from mobiledets_tf.data import check, coco, convert, sample

    folder = tmp_path_factory.mktemp("drawn")
    sample.write_sample(folder / "data", num_train=3, num_val=2, image_size=64, seed=1)
    convert.convert(check.check(coco.find_splits(folder / "data")), folder / "records")
    return folder / "records"
