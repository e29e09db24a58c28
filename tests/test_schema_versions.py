"""Files of 0.1.0 are read, and a file of a newer schema version is refused in one line."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobiledets_tf import architecture, files, latency
from mobiledets_tf.architecture import serialization
from mobiledets_tf.cli import describe
from mobiledets_tf.data import records
from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import model, samples
from mobiledets_tf.quickstart import quickstart_page
from mobiledets_tf.search import rank, rank_report, settings, state
from mobiledets_tf.search_space import encode, get_space
from mobiledets_tf.weights import imported_weights, trained_folder
from tflite_export.detector import detect
from tflite_export.devices import phone
from tflite_export.export import report_page

ROOT = Path(__file__).resolve().parent.parent
# Written by a small run of 0.1.0. They never change: files of a later version go into a folder of their own.
FILES = ROOT / "tests" / "files_of_0_1_0"
SPACE = get_space("ibn", depth_multiplier=0.25)
# The version that is written now, by the file names of WORKSPACE.md.
WRITTEN = {
    "architecture.json": serialization.SCHEMA_VERSION,
    "latency_model.json": model.SCHEMA_VERSION,
    "SAMPLES.jsonl": samples.SCHEMA_VERSION,
    "manifest.json": phone.SCHEMA_VERSION,
    "dataset.json": records.DATASET_VERSION,
    "settings.json": trained_folder.SETTINGS_VERSION,
    "import.json": imported_weights.SCHEMA_VERSION,
    "search_state.json": state.SCHEMA_VERSION,
    "search_report.json": settings.REPORT_VERSION,
    "shared_quality.json": rank.SHARED_VERSION,
    "rank_report.json": rank_report.SCHEMA_VERSION,
    "report.json": report_page.SCHEMA_VERSION,
    "metrics.json": detect.METRICS_VERSION,
    "summary.json": quickstart_page.SUMMARY_VERSION,
}


def _resumed(path: Path) -> dict[str, Any]:
    """Compares a search's settings with those in its folder, as a resumed search does."""
    given = json.loads((FILES / "search" / "settings.json").read_text())
    del given["schema_version"]
    settings.keep(path, given, "search")
    return given


def _page(path: Path) -> str:
    """Returns the text of a quickstart's page, which reads the reports of its stages."""
    work = path.parent if path.name == "summary.json" else path.parents[1]
    return quickstart_page.write(work).read_text()


# Everything that reads a file, and something that it has to find there.
READERS: dict[str, list[tuple[Callable[[Path], Any], Callable[[Any], bool]]]] = {
    "search/architecture.json": [
        (architecture.load, lambda found: encode(SPACE, found).tolist() == list(found.origin.decisions))
    ],
    "latency_model.json": [
        (latency.load, lambda found: found.unit == "madds" and found.space.hash == SPACE.hash)
    ],
    "samples.jsonl": [
        (samples.load, lambda found: found.times.shape == (4,) and found.header["device"] == "edgetpu")
    ],
    "phone/manifest.json": [
        (lambda path: phone.read_manifest(path.parent), lambda found: len(found["networks"]) == 2)
    ],
    "records/dataset.json": [
        (records.read_dataset, lambda found: found["splits"]["train"]["images"] == 24),
        (
            lambda path: records.coco_category_ids([str(path.parent / "train-0")], {1: "0", 2: "1"}),
            lambda found: found == {1: 1, 2: 2},
        ),
    ],
    "train/settings.json": [
        (lambda path: trained_folder.settings(path.parent), lambda found: found["image_size"] == [96, 96])
    ],
    "own/settings.json": [
        (lambda path: trained_folder.settings(path.parent), lambda found: found["num_classes"] == 10)
    ],
    "search/settings.json": [
        (lambda path: rank.read_search(path.parent), lambda found: found[1].hash == SPACE.hash),
        (lambda path: trained_folder.settings(path.parent), lambda found: found["depth_multiplier"] == 1.0),
        (_resumed, lambda found: found["algorithm"] == "evolution"),
    ],
    "search/search_state.json": [(lambda path: state.load(path.parent), lambda found: found["step"] == 6)],
    "rank/shared_quality.json": [
        (
            lambda path: rank.read_start(path.parent, SPACE, 3),
            lambda found: found[1].tolist() == [[-2.5, -2.0], [-1.5, -float("inf")], [-3.0, -3.5]],
        )
    ],
    "search/search_report.json": [(_page, lambda found: "multiply-adds" in found)],
    "export/report.json": [(_page, lambda found: "edgetpu" in found)],
    "summary.json": [(_page, lambda found: "</html>" in found)],
}
CASES = [(name, number) for name, readers in READERS.items() for number in range(len(readers))]
# Written without a version before 0.1.0 was complete: no version means the first one.
UNVERSIONED = ("phone/manifest.json", "search/settings.json", "summary.json", "records/dataset.json")


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the files, to be changed."""
    return shutil.copytree(FILES, tmp_path / "files")


def _change(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the JSON object in a file, or in the first line of a .jsonl file."""
    first, *rest = path.read_text().split("\n") if path.suffix == ".jsonl" else (path.read_text(),)
    content = json.loads(first)
    change(content)
    path.write_text("\n".join([json.dumps(content), *rest]))


@pytest.mark.parametrize("name, reader", CASES)
def test_a_file_of_0_1_0_is_read(name, reader, copy):
    read, is_right = READERS[name][reader]
    assert is_right(read(copy / name))


@pytest.mark.parametrize("name, reader", CASES)
def test_a_newer_file_is_refused_in_one_line(name, reader, copy):
    news = {"schema_version": 99, "written_by": "mobiledets-tf 9.9.9", "news": []}
    _change(copy / name, lambda content: content.update(news))
    with pytest.raises(InputError) as caught:
        READERS[name][reader][0](copy / name)
    message = str(caught.value)
    assert "\n" not in message and str(copy / name) in message
    allowed = re.search(r"schema_version is 99; allowed: (?:\d+ to )?(\d+)", message)
    known = "SAMPLES.jsonl" if name == "samples.jsonl" else Path(name).name
    assert int(allowed[1]) == WRITTEN[known]
    assert "newer version, 'mobiledets-tf 9.9.9'" in message


@pytest.mark.parametrize("name", UNVERSIONED)
def test_no_version_is_the_first(name, copy):
    _change(copy / name, lambda content: content.pop("schema_version"))
    for read, is_right in READERS[name]:
        assert is_right(read(copy / name))


@pytest.mark.parametrize("version", [None, 0, "1", 1.0, True, [], -1])
def test_versions_are_whole_numbers(version, copy):
    path = copy / "train" / "settings.json"
    _change(path, lambda content: content.update(schema_version=version))
    with pytest.raises(InputError, match="schema_version is .*; allowed: 1$"):
        trained_folder.settings(path.parent)


def test_a_phone_folder_of_before_is_completed(copy):
    """The manifest of the same networks counts as the same, with a version or without."""
    path = copy / "phone" / "manifest.json"
    _change(path, lambda content: content.pop("schema_version"))
    found = phone.read_manifest(path.parent)
    for name in found["networks"]:
        (path.parent / f"{name}.tflite").touch()
    space = samples.space_of(found["header"])
    networks = [np.array(decisions, "int32") for decisions in found["networks"].values()]
    phone.write(path.parent, found["header"], space, None, networks, False, 1, 50)
    assert json.loads(path.read_text()) == {"schema_version": 1} | found


def test_a_command_refuses_a_newer_file(copy, capsys):
    path = copy / "search" / "architecture.json"
    _change(path, lambda content: content.update(schema_version=2, gates=[]))
    assert describe.run(["describe", f"--architecture={path}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "schema_version is 2; allowed: 1" in error


def test_golden_files_are_of_0_1_0():
    """Files with a version were written by 0.1.0, with versions that are not newer than today's."""
    for path in FILES.rglob("*.json"):
        content = files.read_json(path)
        if isinstance(content, dict):
            assert content.get("written_by", "mobiledets-tf 0.1.0") == "mobiledets-tf 0.1.0", path
            known = "architecture.json" if path.name.startswith("network") else path.name
            assert content["schema_version"] <= WRITTEN[known], path


def test_the_map_lists_every_version():
    text = (ROOT / "WORKSPACE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \| ([\d, ]+) \| (\d|\d to \d|-) \|", text, re.MULTILINE)
    listed: dict[str, int] = {}
    for names, versions, read in rows:
        numbers = [int(number) for number in versions.split(", ")]
        listed |= zip(re.findall("`([^`]+)`", names), numbers, strict=True)
        assert read == "-" or [int(read[-1])] == numbers
    assert listed == WRITTEN
