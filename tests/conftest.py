"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

# Must be set before any test module imports TensorFlow, whichever runs first.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference files and real photos: $MOBILEDETS_SHARED, or shared/ beside the checkout."""
    folder = Path(os.environ.get("MOBILEDETS_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no reference files at {folder}; set MOBILEDETS_SHARED")
    return folder
