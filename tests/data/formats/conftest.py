"""How much of the random tests is run: $MOBILEDETS_FUZZ inputs of each kind, few by default."""

import importlib.util
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def writers():
    """The writers of all formats; test folders are no packages."""
    spec = importlib.util.spec_from_file_location("format_writers", Path(__file__).parent / "writers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def rounds() -> int:
    """Random inputs of each kind; 60 by default."""
    return int(os.environ.get("MOBILEDETS_FUZZ", "60"))
