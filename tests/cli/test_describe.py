"""`mobiledets-describe`: the figures as JSON and as a table."""

import json
import re

import pytest

from mobiledets_tf import architecture
from mobiledets_tf.cli import describe


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = describe.run(["mobiledets-describe", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize("name", architecture.PUBLISHED)
def test_json_is_the_description(name, run):
    code, out, err = run(f"--architecture={name}", "--format=json")
    assert (code, err) == (0, "")
    assert json.loads(out) == architecture.describe(architecture.load(name))


def test_json_of_other_settings(run):
    arguments = ["--num_classes=7", "--image_size=192", "--depth_multiplier=0.5", "--format=json"]
    code, out, _ = run("--architecture=cpu", *arguments)
    assert code == 0
    assert json.loads(out) == architecture.describe(architecture.load("cpu").scaled(0.5), 7, 192)


def test_the_contract_of_the_json(run):
    description = json.loads(run("--architecture=edgetpu", "--format=json")[1])
    assert description["anchors"] == 2034
    assert description["params"] == 4_196_095
    assert description["trainable_params"] == 4_146_543
    assert description["madds"] == 1_533_181_504
    stem = {"op": "conv", "kernel": 3, "stride": 2, "in_channels": 3, "out_channels": 32, "endpoint": None}
    assert description["layers"][0].items() >= stem.items()
    assert len(description["layers"]) == 23
    assert [layer["endpoint"] for layer in description["layers"] if layer["endpoint"]] == [
        "C1",
        "C2",
        "C3",
        "C4",
        "C5",
    ]
    parts = description["layers"] + description["head"]
    assert sum(part["params"] for part in parts) == description["params"]
    assert sum(part["madds"] for part in parts) == description["madds"]


def test_an_architecture_file_is_described_like_the_network(run, tmp_path):
    architecture.save(architecture.load("dsp"), tmp_path / "mine.json")
    for form in ("text", "json"):
        from_file = run(f"--architecture={tmp_path / 'mine.json'}", f"--format={form}")
        assert from_file == run("--architecture=dsp", f"--format={form}")


def test_text_is_a_table_that_adds_up(run):
    code, out, _ = run("--architecture=edgetpu")
    assert code == 0
    table, totals = out.rstrip().split("\n\n")
    header, *rows = table.splitlines()
    assert header.split() == [
        "layer",
        "op",
        "kernel",
        "stride",
        "in",
        "out",
        "size",
        "params",
        "madds",
        "notes",
    ]
    assert len(rows) == 23 + 4 + 12
    end = header.index("madds") + len("madds")
    cells = [row[:end].split() for row in rows]
    assert all(len(row) == end or row[end] == " " for row in rows)  # Aligned to the right.
    assert sum(int(row[-1].replace(",", "")) for row in cells) == 1_533_181_504
    assert sum(int(row[-2].replace(",", "")) for row in cells) == 4_196_095
    assert cells[1] == ["block1_layer1", "tucker", "3", "1", "32", "16", "160x160", "1,824", "42,598,400"]
    assert rows[1].endswith("ratios 0.25/0.75, C1")
    assert rows[3].endswith("expansion 4, residual")
    assert re.search(r"^parameters +4,196,095 \(4,146,543 trainable\)$", totals, re.MULTILINE)
    assert re.search(r"^multiply-adds +1,533,181,504$", totals, re.MULTILINE)
    assert re.search(r"^anchors +2,034$", totals, re.MULTILINE)


def test_text_names_squeeze_excite(run):
    assert "hard_swish, squeeze-excite 0.25" in run("--architecture=cpu")[1]
    assert "squeeze-excite" not in run("--architecture=gpu")[1]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "--architecture is required"),
        (["--architecture=edgtpu"], "unknown architecture 'edgtpu' (did you mean 'edgetpu'?)"),
        (["--architecture=none.json"], "architecture file 'none.json' does not exist"),
        (["--architecture=cpu", "--image_size=64"], "image size 64 does not fit six feature maps"),
        (["--architecture=cpu", "--num_classes=0"], "number of classes is 0"),
        (["--architecture=cpu", "--num_classes=many"], "--num_classes=many"),
        (["--architecture=cpu", "--depth_multiplier=nan"], "depth multiplier is nan"),
        (["--architecture=cpu", "--format=jsn"], "--format=jsn (did you mean 'json'?)"),
        (["--architecture=cpu", "--num_class=3"], "unknown flag --num_class (did you mean 'num_classes'?)"),
    ],
)
def test_wrong_input_gets_one_line_and_no_output(arguments, words, run):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
