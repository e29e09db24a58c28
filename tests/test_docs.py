"""`make docs`: the reference shows the docstrings of every module."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _write(output_dir: Path, *modules: str) -> None:
    arguments = [sys.executable, "docs/api_reference.py", str(output_dir), *modules]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_docs_show_docstrings(tmp_path):
    _write(tmp_path, "mobiledets_tf.architecture", "object_detection_configs")
    page = (tmp_path / "mobiledets_tf" / "architecture" / "specs.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]*>", "", page)
    for words in ("class FusedInvertedBottleneckSpec", "output channels", "1x1 linear projection"):
        assert words in text
    assert (tmp_path / "object_detection_configs.html").exists()


@pytest.mark.slow
def test_docs_hold_every_module(tmp_path):
    _write(tmp_path)
    pages = {path.relative_to(tmp_path).with_suffix("").as_posix() for path in tmp_path.rglob("*.html")}
    for package in ("mobiledets_tf", "tflite_export", "object_detection_configs"):
        for path in (ROOT / package).rglob("*.py"):
            module = path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__")
            assert module in pages or module.startswith("mobiledets_tf/cli"), module


def test_make_docs_calls_it():
    rules = (ROOT / "Makefile").read_text()
    assert re.search(r"^docs: setup\n\t\S+ docs/api_reference\.py site$", rules, re.MULTILINE)
