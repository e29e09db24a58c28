"""The doctor: JSON, a verdict, and an exit code about the software alone."""

import dataclasses
import json

import pytest

from mobiledets_tf import doctor
from mobiledets_tf.cli import doctor as command


def test_report_of_this_machine(capsys):
    assert command.run(["mobiledets-doctor", "--format=json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["verdict"].startswith("the software works")
    assert {"tensorflow", "tf_keras"} <= {item["package"] for item in report["versions"]}
    assert {device["name"] for device in report["devices"]} == {
        "host_cpu",
        "gpu",
        "edgetpu",
        "coral",
        "hexagon",
        "ethos_u",
        "android",
    }
    for item in report["versions"]:
        assert item["ok"] == (item["fix"] is None)
    for device in report["devices"]:
        assert device["reachable"] == (device["fix"] is None) and device["detail"]


def test_software_that_fails_is_exit_1(monkeypatch, capsys):
    broken = [doctor.Import("object_detection", False, "ImportError: no such thing")]
    monkeypatch.setattr(doctor, "_import_core", lambda: ([], broken))
    assert command.run(["mobiledets-doctor"]) == 1
    text = capsys.readouterr().out
    assert "--  object_detection: ImportError: no such thing" in text
    assert "the software does not work: object_detection cannot be imported; run: make setup" in text


def test_pins():
    from packaging.requirements import Requirement

    assert doctor._version(Requirement("numpy>=1")).ok
    other = doctor._version(Requirement("numpy==1.0"))
    assert not other.ok and other.fix.endswith('pip install "numpy==1.0"')
    missing = doctor._version(Requirement("no-such-package-here==1"))
    assert missing.installed is None and not missing.ok


def test_text_gives_each_fix():
    report = doctor.Report("3.11", [], [], [], [doctor.Device("gpu", False, "none", "do this")])
    assert "fix: do this" in doctor.as_text(report)
    assert dataclasses.replace(report, devices=[]).verdict == "the software works; reachable devices: none"


@pytest.mark.parametrize(
    ("with_cuda", "driver", "libraries", "words", "fix"),
    [
        (True, None, True, "no NVIDIA driver responds", "ubuntu-drivers"),
        (False, "H100", True, "the driver sees H100; this TensorFlow is built without CUDA", "[gpu]"),
        (True, "H100", False, "CUDA's libraries are not installed", "[gpu]"),
        (True, "H100", True, "TensorFlow cannot use it", "nvidia-smi"),
    ],
)
def test_a_gpu_that_is_not_seen_has_one_reason_and_one_command(with_cuda, driver, libraries, words, fix):
    device = doctor._missing_gpu(with_cuda, driver, libraries)
    assert not device.reachable and words in device.detail and fix in device.fix


def test_the_cards_of_the_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._nvidia_driver() is None
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'NVIDIA T4'\necho 'NVIDIA L4'\n")
    script.chmod(0o755)
    assert doctor._nvidia_driver() == "NVIDIA T4, NVIDIA L4"
    script.write_text("#!/bin/sh\necho 'no devices were found'\nexit 6\n")
    assert doctor._nvidia_driver() is None
