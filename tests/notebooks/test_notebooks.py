"""Every notebook runs from top to bottom in a kernel of its own, at settings smaller than it opens with."""

import importlib.util
import os
import re
import stat
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Settings of the parameters cell: every path of the notebook runs, few steps of it.
_SIZE = {"IMAGE_SIZE": 96, "DEPTH_MULTIPLIER": 0.25, "STEPS": 12, "BATCH": 4}
SMALL = {
    "1_search_for_a_device": _SIZE | {"SPACE": "ibn", "TRAIN_IMAGES": 60},
    "2_your_images_to_edge_tpu": _SIZE | {"SAMPLE_IMAGES": 24},
    # Fewer networks are refused.
    "3_latency_of_this_machine": {"IMAGE_SIZE": 96, "NETWORKS": 50, "RUNS": 2, "CHECKED": 3},
    "4_python_api": _SIZE | {"SAMPLE_IMAGES": 24},
}


def _commands():
    """Name of every console script -> its module, as setup.py says."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    names = re.findall(r'"(\w+)"', re.search(r"^COMMANDS = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)[1])
    modules = dict(re.findall(r'"(\w+)": "(\w+)"', re.search(r"^MODULES = (.*)$", text, re.MULTILINE)[1]))
    return {f"mobiledets-{name}": modules.get(name, name) for name in names}


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """Console scripts of this checkout on the PATH, installed or not."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, module in _commands().items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mobiledets_tf.cli.{module} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


def _with_settings(notebook, settings):
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assigned = {name for name in settings if re.search(rf"\b{name}\b.*=", cell.source)}
    assert assigned == set(settings)
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in settings.items())


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, scripts, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    _with_settings(notebook, SMALL[path.stem])
    folder = tmp_path / "a folder né"
    folder.mkdir()
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not any(output.output_type == "error" for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_kept_without_outputs_and_has_its_badge(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
        assert set(cell.metadata) <= {"tags"}
    badge = re.search(
        r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/main/(\S+)\)", notebook.cells[0].source
    )
    assert badge[2] == f"notebooks/{path.name}"
    assert f"github.com/{badge[1]}" in notebook.cells[1].source


def test_all_hold_one_address_of_the_repository():
    text = "".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS)
    found = re.findall(r"""github(?:\.com)?/([\w.-]+/[\w.-]+?)(?:/blob|\\")""", text)
    assert len(found) == 2 * len(NOTEBOOKS) and len(set(found)) == 1
    for name in ("setup.py", "README.md"):
        assert f"github.com/{found[0]}" in (ROOT / name).read_text(encoding="utf-8"), name


def test_every_notebook_has_small_settings():
    assert {path.stem for path in NOTEBOOKS} == set(SMALL)
    assert importlib.util.find_spec("ipykernel")
