"""What is installed works outside the checkout: wheel and source archive."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import object_detection_configs
from mobiledets_tf import __version__

ROOT = Path(__file__).resolve().parent.parent
# A user's folder: spaces, letters outside ASCII.
FOLDER = "größe né дата 箱"
PARTS = (
    "mobiledets_tf",
    "tflite_export",
    "object_detection_configs",
    ".ci",
    "tests",
    "benchmarks",
    "notebooks",
    "docs",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the tree, so that building leaves nothing in the real one."""
    copy = tmp_path_factory.mktemp("package") / FOLDER / "checkout"
    copy.mkdir(parents=True)
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, copy)
    return copy


def _build(checkout: Path, kind: str) -> Path:
    output = checkout.parent / kind
    output.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta as b; b.build_{kind}({str(output)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=checkout, check=True, capture_output=True)
    return next(path for path in output.iterdir() if __version__ in path.name)


@pytest.fixture(scope="module")
def installed(checkout) -> Path:
    wheel, site = _build(checkout, "wheel"), checkout.parent / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(site), str(wheel)], check=True, capture_output=True)
    return site


def _run(site: Path, folder: Path, command: str, *flags: str) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-m", f"mobiledets_tf.cli.{command}", *flags]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_carries_what_commands_read(installed):
    shipped = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert {"mobiledets_tf/py.typed", "tflite_export/py.typed"} <= shipped
    assert {f"object_detection_configs/{name}" for name in object_detection_configs.names()} <= shipped
    models = (ROOT / "mobiledets_tf/latency/models").glob("*.json")
    assert {path.relative_to(ROOT).as_posix() for path in models} <= shipped
    modules = [path for room in PARTS[:3] for path in (ROOT / room).rglob("*.py")]
    assert {path.relative_to(ROOT).as_posix() for path in modules} <= shipped
    assert not any(path.startswith(("tests", "benchmarks")) for path in shipped)


def test_commands_work_from_an_installed_package(installed, tmp_path):
    folder = tmp_path / FOLDER
    folder.mkdir()
    described = _run(installed, folder, "describe", "--architecture=edgetpu", "--format=json")
    assert json.loads(described.stdout)["params"] == 4_196_095, described.stderr
    made = _run(
        installed, folder, "data", "--mode=sample", "--output_dir=drawn set", "--num_train=2", "--num_val=2"
    )
    assert made.returncode == 0, made.stderr
    converted = _run(installed, folder, "data", "--mode=convert", "--images=drawn set", "--output_dir=récord")
    assert converted.returncode == 0, converted.stderr
    assert json.loads((folder / "récord/dataset.json").read_text())["written_by"].endswith(__version__)
    code = "import object_detection_configs as c; print(c.find(c.names()[0]))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
    )
    assert Path(found.stdout.strip()).is_relative_to(installed)


def test_the_source_archive_can_be_built_and_tested(checkout):
    with tarfile.open(_build(checkout, "sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "setup.py",
        "constraints.txt",
        "Makefile",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "tests/conftest.py",
        "docs/measurements.md",
        "docs/images/detections.jpg",
    }
    assert needed <= names
    for room in PARTS:
        for path in (ROOT / room).rglob("*"):
            if path.suffix in (".py", ".config", ".ipynb", ".json"):
                assert path.relative_to(ROOT).as_posix() in names
