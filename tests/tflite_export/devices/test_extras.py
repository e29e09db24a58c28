"""Devices whose extra is missing, or installed without what it is for."""

import sys
import types

import pytest

from mobiledets_tf import architecture
from mobiledets_tf.errors import InputError
from tflite_export import devices
from tflite_export.graphs import Settings, network_graph

_PACKAGES = ("onnxruntime", "onnxruntime_qnn", "ethosu", "ethosu.vela", "ethosu.vela.vela")


def asked(module):
    """What asks for the extra."""
    graph = network_graph(architecture.load("dsp"), Settings((96, 96)))
    return module.versions, lambda: module.measure_graph(graph)


@pytest.fixture
def load():
    """Loads a device that has not looked for its extra yet, nor has after the test."""
    loaders = []

    def fresh(name: str):
        module = devices.load(name)
        loaders.append(module._packages if name == "hexagon" else module._vela)
        loaders[-1].cache_clear()
        return module

    yield fresh
    for loader in loaders:
        loader.cache_clear()


@pytest.mark.parametrize("name", ["hexagon", "ethos_u"])
def test_without_its_extra_a_device_says_how_to_install_it(name, load, monkeypatch):
    for package in _PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
    for question in asked(load(name)):
        with pytest.raises(InputError, match=rf"pip install 'mobiledets-tf\[{name}\]'"):
            question()


def test_a_package_without_the_vendors_libraries_is_recognised(load, monkeypatch, tmp_path):
    empty = types.SimpleNamespace(get_qnn_htp_path=lambda: str(tmp_path / "libQnnHtp.so"))
    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", empty)
    for question in asked(load("hexagon")):
        with pytest.raises(InputError, match="has no QNN libraries.*--force-reinstall onnxruntime-qnn"):
            question()
