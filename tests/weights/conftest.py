"""The small detector and its files, which the tests of the export use too."""

import importlib.util
from pathlib import Path

_FILE = Path(__file__).parents[1] / "tflite_export" / "conftest.py"


def _fixtures():
    """Tests are no package: the helper is loaded from its file."""
    spec = importlib.util.spec_from_file_location("small_detector", _FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_shared = _fixtures()
anchors, calibration, detector = _shared.anchors, _shared.calibration, _shared.detector
folder, network, pictures = _shared.folder, _shared.network, _shared.pictures
tflite, training = _shared.tflite, _shared.training
