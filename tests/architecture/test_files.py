"""Artefacts are written whole or not at all."""

import errno
import json
import os
import stat

import pytest

from mobiledets_tf import files
from mobiledets_tf.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "folder"


def _names(folder):
    return sorted(os.listdir(folder))


def test_json_round_trip_makes_folders(folder):
    value = {"ä": [1, 2.5, None, True], "nested": {"x": "\u2028"}}
    files.write_json(folder / "value.json", value)
    assert files.read_json(folder / "value.json") == value
    assert _names(folder) == ["value.json"]


def test_a_failing_body_leaves_the_old_file(folder):
    files.write_text(folder / "file.txt", "old")
    with pytest.raises(RuntimeError), files.atomic_path(folder / "file.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (folder / "file.txt").read_text() == "old"
    assert _names(folder) == ["file.txt"]


def test_an_interrupt_leaves_nothing(folder):
    with pytest.raises(KeyboardInterrupt), files.atomic_path(folder / "file.txt"):
        raise KeyboardInterrupt
    assert _names(folder) == []


def test_values_that_are_not_json_leave_the_old_file(folder):
    files.write_json(folder / "value.json", 1)
    for value in (float("nan"), {"a": {float("inf")}}, object()):
        with pytest.raises((ValueError, TypeError)):
            files.write_json(folder / "value.json", value)
    assert files.read_json(folder / "value.json") == 1
    assert _names(folder) == ["value.json"]


def test_a_full_disk_at_the_rename_leaves_the_old_file(folder, monkeypatch):
    files.write_text(folder / "file.txt", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.write_text(folder / "file.txt", "new")
    assert (folder / "file.txt").read_text() == "old"
    assert _names(folder) == ["file.txt"]


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_follow_the_umask(folder, umask, mode):
    before = os.umask(umask)
    try:
        files.write_text(folder / "file.txt", "text")
        assert os.umask(umask) == umask  # It was put back.
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "file.txt").stat().st_mode) == mode


def test_the_temporary_file_keeps_the_suffix(folder):
    # Writers such as image libraries choose a format by it.
    with files.atomic_path(folder / "picture.png") as temporary:
        assert (temporary.suffix, temporary.parent) == (".png", folder)
        assert temporary.name.startswith(".")


def test_a_target_that_is_a_folder(folder):
    (folder / "target").mkdir(parents=True)
    with pytest.raises(OSError):
        files.write_text(folder / "target", "text")
    assert _names(folder) == ["target"]


def test_reading_says_what_and_where(folder):
    with pytest.raises(InputError, match="cannot read latency model '.*none.json': No such file"):
        files.read_json(folder / "none.json", "latency model")
    files.write_text(folder / "bad.json", '{"a": 1,\n "b": }')
    with pytest.raises(InputError, match="report '.*bad.json' is not valid JSON: .* line 2, column 7"):
        files.read_json(folder / "bad.json", "report")


def test_numbers_of_thousands_of_digits(folder):
    files.write_text(folder / "long.json", json.dumps({"a": 0}).replace("0", "1" * 5000))
    with pytest.raises(InputError, match="long.json"):
        files.read_json(folder / "long.json")
