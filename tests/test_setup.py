"""The installation files agree with the tree."""

import ast
import importlib
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import object_detection_configs
from mobiledets_tf import __version__, architecture
from mobiledets_tf.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


def _setup_value(name):
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise KeyError(name)


def _canonical(requirement):
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>\[]", requirement)[0]).lower()


def _modules():
    special = _setup_value("MODULES")
    return {special.get(name, name) for name in _setup_value("COMMANDS")}


def test_every_command_has_a_run_function():
    for name in _modules():
        assert callable(importlib.import_module(f"mobiledets_tf.cli.{name}").run)


def test_every_cli_module_is_a_command():
    modules = {path.stem for path in (ROOT / "mobiledets_tf" / "cli").glob("*.py")}
    shared = {"__init__", "app", "help_text", "space_flags", "strategy_flags", "weight_flags"}
    assert modules - shared == _modules()


def test_constraints_fix_what_setup_asks_for():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    fixed = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    fixed = {_canonical(name): version for name, version in fixed.items()}
    asked = [*_setup_value("REQUIRES"), *sum(_setup_value("EXTRAS").values(), [])]
    for requirement in asked:
        assert _canonical(requirement) in fixed, requirement
        if "==" in requirement:
            assert fixed[_canonical(requirement)] == requirement.split("==")[1]
    assert not any("@" in line or "://" in line for line in lines)


def test_there_is_one_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert (ROOT / "setup.py").read_text().count(__version__) == 0


def test_files_that_leave_a_stage_carry_the_version(tmp_path):
    architecture.save(architecture.load("edgetpu"), tmp_path / "network.json")
    written = json.loads((tmp_path / "network.json").read_text())
    assert written["written_by"] == f"mobiledets-tf {__version__}"
    # A file of another version, or of none, is read all the same.
    for other in ({"written_by": "mobiledets-tf 9.9.9"}, {}):
        rest = {key: value for key, value in written.items() if key != "written_by"}
        (tmp_path / "other.json").write_text(json.dumps(other | rest))
        assert architecture.load(tmp_path / "other.json") == architecture.load("edgetpu")


def test_shipped_configs_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in object_detection_configs.names():
        for given in (name, f"object_detection_configs/{name}"):
            assert Path(object_detection_configs.find(given)) == object_detection_configs.FOLDER / name
    own = tmp_path / object_detection_configs.names()[0]
    own.touch()
    assert object_detection_configs.find(own.name) == own.name
    with pytest.raises(InputError, match="did you mean 'ssdlite_mobiledet_cpu"):
        object_detection_configs.find("ssdlite_mobiledet_cpu_320x320.config")
    with pytest.raises(InputError, match="does not exist"):
        object_detection_configs.find("../object_detection_configs/ssdlite_mobiledet_sample_160x160.config")


def test_make_passes_folders_with_spaces(tmp_path):
    given = ["WORK_DIR=a b", "DATA=c é", "SEED=3", "DEVICE=host_cpu"]
    arguments = ["make", "-n", "--no-print-directory", "quickstart", *given]
    shown = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = shlex.split(shown.splitlines()[-1])
    assert words[1:] == ["--work_dir=a b", "--seed=3", "--data=c é", "--device=host_cpu"]
