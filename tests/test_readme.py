"""README and docs: quick commands run in their order, flags of the others are parsed, links lead somewhere.

The Python snippets run in tests/tflite_export/detector/test_detect.py, which has a detector.
"""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from mobiledets_tf import architecture

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]
# Pages repeat each other's commands; each is checked once.
COMMANDS = [list(words) for words in dict.fromkeys(tuple(shlex.split(line, comments=True)) for line in LINES)]
OURS = [words for words in COMMANDS if words[0].startswith("mobiledets-")]
OTHERS = [words for words in COMMANDS if words not in OURS]
# These train, search, convert or read a checkpoint: minutes. Tests of their own and of notebooks run them.
LONG = {"search", "train", "export", "import", "rank", "quickstart"}
# Measure, or need what a long one would have written.
AFTER_LONG = (
    "--model=runs/",
    "--model=exports/",
    "--architecture=runs/",
    "--mode=measure",
    "--samples=",
    "--model=host.json",
)
MODULES = {"import": "import_weights"}
SAMPLE = ["mobiledets-data", "--mode=sample", "--output_dir=cards"]


def _command(name):
    name = name.removeprefix("mobiledets-")
    return importlib.import_module(f"mobiledets_tf.cli.{MODULES.get(name, name)}")


def _runs_here(words):
    name = words[0].removeprefix("mobiledets-")
    return name not in LONG and not any(word.startswith(AFTER_LONG) for word in words)


def _setup():
    """The names of all commands and the address of the repository in the notebooks."""
    names = re.search(r"^COMMANDS = \[(.*?)\]", (ROOT / "setup.py").read_text(), re.MULTILINE | re.DOTALL)[1]
    notebook = next((ROOT / "notebooks").glob("*.ipynb")).read_text(encoding="utf-8")
    return re.findall(r'"(\w+)"', names), re.search(r"git\+(https://github\.com/[\w./-]+)", notebook)[1]


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_flags_are_known(words):
    values = _command(words[0]).FLAGS
    values.unparse_flags()
    assert values(words)[1:] == []


def test_quick_commands_run_in_their_order(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert SAMPLE in OURS and f"`{' '.join(SAMPLE)}`" in README
    quick = [words for words in OURS if _runs_here(words) and words != SAMPLE]
    ran = [[*SAMPLE, "--num_train=6", "--num_val=3"], *quick]
    for words in ran:
        assert _command(words[0]).run(words) == 0, (words, capfd.readouterr().err)
    assert {words[0] for words in ran} >= {
        "mobiledets-data",
        "mobiledets-latency",
        "mobiledets-describe",
        "mobiledets-doctor",
    }
    assert json.loads((tmp_path / "records" / "dataset.json").read_text())["splits"]["train"]["images"] == 6
    assert (tmp_path / "cost.json").exists() and (tmp_path / "check.html").exists()


def test_every_command_is_described():
    names, _ = _setup()
    assert {f"mobiledets-{name}" for name in names} == set(re.findall(r"mobiledets-(?!tf\b)[a-z]+", TEXT))


def test_flags_in_sentences_exist():
    names, _ = _setup()
    known = {flag for name in names for flag in _command(name).FLAGS}
    known |= _benchmark_flags()
    sentences = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    mentioned = set(re.findall(r"(?<![\w-])--(\w+)", sentences))
    unknown = {flag for flag in mentioned if flag not in known and flag.removeprefix("no") not in known}
    assert mentioned and unknown <= {"help", "constraint", "editable"}


def _benchmark_flags(name="*"):
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob(f"{name}.py"))
    return set(re.findall(r'(?:DEFINE_\w+\(\s*"|add_argument\(\s*"--)(\w+)"', text))


def test_other_commands_exist():
    _, address = _setup()
    makefile = (ROOT / "Makefile").read_text()
    for words in OTHERS:
        line = " ".join(words)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), line
        elif line.startswith("python -m pytest "):
            assert all((ROOT / path).exists() for path in words[3:]), line
        elif words[0] == "python":
            assert (ROOT / words[1]).exists(), line
            flags = {word[2:].partition("=")[0] for word in words[2:]}
            assert flags <= _benchmark_flags(Path(words[1]).stem), line
        else:
            assert line in (
                f"git clone {address}",
                f"cd {address.rpartition('/')[2]}",
                "source .venv/bin/activate",
                f"pip install mobiledets-tf @ git+{address}",
            )
    assert {" ".join(words) for words in OTHERS} >= {"make setup", "make quickstart", f"git clone {address}"}
    for target in re.findall(r"`make (\w+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_figures_of_published_networks():
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \|", README, re.MULTILINE)
    assert [row[0] for row in rows] == list(architecture.PUBLISHED)
    for name, params, madds in rows:
        figures = architecture.describe(architecture.load(name))
        assert (f"{figures['params']:,}", f"{figures['madds']:,}") == (params, madds)


@pytest.mark.parametrize(
    "path",
    [*PAGES, *(ROOT / f"{name}.md" for name in ("WORKSPACE", "CONTRIBUTING", "CHANGELOG"))],
    ids=lambda path: path.name,
)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        target, _, anchor = link.partition("#")
        if target.startswith("https:"):
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        if anchor:
            assert anchor in _anchors(file), link


def _anchors(path):
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
