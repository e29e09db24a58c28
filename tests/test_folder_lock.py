"""A folder is one run's at a time, and free again when the run ends, however it ends."""

import os
import subprocess
import sys

import pytest

from mobiledets_tf.errors import InputError
from mobiledets_tf.folder_lock import locked

HOLD = """
import sys, time
from mobiledets_tf.folder_lock import locked
with locked(sys.argv[1]):
    print("in", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_who_is_in_the_folder(tmp_path):
    folder = tmp_path / "new"
    with locked(folder):
        with pytest.raises(InputError) as caught, locked(folder):
            pass
        assert str(folder) in str(caught.value) and f"(process {os.getpid()})" in str(caught.value)
        with locked(tmp_path / "other"):
            pass
    with locked(folder):
        pass


def test_an_error_and_a_killed_process_leave_it_free(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        1 / 0  # noqa: B018
    line = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in\n"
        with pytest.raises(InputError, match=rf"in use by another run \(process {process.pid}\)"):
            with locked(tmp_path):
                pass
        process.kill()
        process.wait()
        with locked(tmp_path):
            assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_file_in_its_place_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="file' cannot be written: File exists"), locked(file):
        pass
