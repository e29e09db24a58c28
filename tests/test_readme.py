"""Every command of the README: the quick ones run, one after the other, the others' flags are parsed."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from mobiledets_tf import architecture

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]
COMMANDS = [shlex.split(line, comments=True) for line in LINES]
OURS = [words for words in COMMANDS if words[0].startswith("mobiledets-")]
# These train, search, convert or read a checkpoint: minutes. The notebooks' tests run them.
LONG = {"search", "train", "export", "import"}
# Measure, or need what a long one would have written.
AFTER_LONG = ("--model=runs/", "--architecture=runs/", "--mode=measure", "--samples=", "--model=host.json")
MODULES = {"import": "import_weights"}


def _command(words):
    name = words[0].removeprefix("mobiledets-")
    return importlib.import_module(f"mobiledets_tf.cli.{MODULES.get(name, name)}")


def _runs_here(words):
    name = words[0].removeprefix("mobiledets-")
    return name not in LONG and not any(word.startswith(AFTER_LONG) for word in words)


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_flags_are_known(words):
    values = _command(words).FLAGS
    values.unparse_flags()
    assert values(words)[1:] == []


def test_quick_commands_run_in_their_order(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (drawn,) = re.findall(r"`(mobiledets-data --mode=sample[^`]*)`", README)
    small = ["--num_train=6", "--num_val=3"]
    ran = [[*shlex.split(drawn), *small], *(words for words in OURS if _runs_here(words))]
    for words in ran:
        assert _command(words).run(words) == 0, (words, capfd.readouterr().err)
    assert {words[0] for words in ran} >= {
        "mobiledets-data", "mobiledets-latency", "mobiledets-describe", "mobiledets-doctor",
    }  # fmt: skip
    assert json.loads((tmp_path / "records" / "dataset.json").read_text())["splits"]["train"]["images"] == 6
    assert (tmp_path / "cost.json").exists()


def test_make_targets_exist():
    targets = [words[1] for words in COMMANDS if words[0] == "make"]
    assert targets == ["setup", "quickstart"]
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {words[0] for words in COMMANDS if words not in OURS} == {"make"}


def test_figures_of_published_networks():
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \|", README, re.MULTILINE)
    assert [row[0] for row in rows] == list(architecture.PUBLISHED)
    for name, params, madds in rows:
        figures = architecture.describe(architecture.load(name))
        assert (f"{figures['params']:,}", f"{figures['madds']:,}") == (params, madds)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README + (ROOT / "WORKSPACE.md").read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target
