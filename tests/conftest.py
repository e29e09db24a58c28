"""Fixtures that every test may use."""

import collections
import contextlib
import os
import socket
from pathlib import Path

import pytest

# Must be set before any test module imports TensorFlow, whichever runs first.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).resolve().parent.parent

_TWO_REPLICAS = """
import os, sys, tensorflow
cpu = tensorflow.config.list_physical_devices("CPU")[0]
logical = tensorflow.config.LogicalDeviceConfiguration()
tensorflow.config.set_logical_device_configuration(cpu, [logical, logical])
from mobiledets_tf import distribution
strategy = tensorflow.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
distribution.get_strategy = lambda *_: strategy
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: one of them at the end would run alone.

    `make test` turns off the order of pytest-xdist, by number of tests.
    """
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference files and real photos: $MOBILEDETS_SHARED, or shared/ beside the checkout."""
    folder = Path(os.environ.get("MOBILEDETS_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no reference files at {folder}; set MOBILEDETS_SHARED")
    return folder


@pytest.fixture
def loopback_hosts():
    """Makes `localhost:port,...` of so many free ports, all different."""

    def make(count: int) -> str:
        with contextlib.ExitStack() as held:
            # All are held until all are known.
            probes = [held.enter_context(socket.socket()) for _ in range(count)]
            for probe in probes:
                probe.bind(("localhost", 0))
            return ",".join(f"localhost:{probe.getsockname()[1]}" for probe in probes)

    return make


@pytest.fixture
def two_replicas() -> str:
    """Start of a program whose commands run as two replicas, on two logical CPUs of one process.

    TensorFlow hangs where iterators are deleted beside such a strategy: the program must keep them
    and leave with `os._exit`.
    """
    return _TWO_REPLICAS
