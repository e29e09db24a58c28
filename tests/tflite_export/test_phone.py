"""Networks timed elsewhere: files, manifest and commands out; times back in, faults named by row."""

import json

import pytest

from mobiledets_tf.cli import latency as command
from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import samples
from mobiledets_tf.search_space import get_space
from tflite_export import inspect, phone

FLAGS = ["--search_space=ibn", "--depth_multiplier=0.25", "--image_size=96", "--num_classes=3"]


def measure(*flags):
    return command.run(["mobiledets-latency", "--mode=measure", *flags])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phone") / "nets"
    assert measure("--device=adb", "--variant=mine", "--networks=4", f"--output={folder}", *FLAGS) == 0
    return folder


def test_files_manifest_and_commands(folder):
    files = sorted(path.name for path in folder.glob("*.tflite"))
    assert files == [f"network_{i:05d}.tflite" for i in range(4)]
    assert inspect.read(folder / files[3]).histogram()["CONV_2D"] > 20
    script = (folder / phone.COMMANDS).read_text()
    assert script.count("--num_threads=1 --num_runs=50 --warmup_runs=5") == 4
    assert "adb push network_00002.tflite" in script


def test_another_call_with_other_networks_is_refused(folder, capsys):
    assert measure("--device=adb", "--seed=1", "--networks=4", f"--output={folder}", *FLAGS) == 2
    assert "other networks or settings" in capsys.readouterr().err


def test_commands_run_and_their_logs_are_read(folder, tmp_path):
    """By a stand-in for the binary that prints what the real one prints."""
    import subprocess

    for name in ("adb",):
        tool = tmp_path / name
        tool.write_text(
            '#!/bin/sh\n[ "$1 $2" = "shell /data/local/tmp/mobiledets/benchmark_model" ] || exit 0\n'
            'echo "INFO: Inference timings in us: Init: 5, First inference: 9000, Warmup (avg): 8000, '
            'Inference (avg): 7512.5"\n'
        )
        tool.chmod(0o755)
    ran = subprocess.run(
        ["sh", phone.COMMANDS], cwd=folder, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False
    )
    assert ran.returncode == 0
    output = tmp_path / "s.jsonl"
    assert measure("--device=adb", f"--output={folder}", "--results=logs", f"--samples={output}") == 0
    header, rows = samples.read(output)
    assert (header["device"], header["variant"], header["kind"]) == ("adb", "mine", "measured")
    assert [row["ms"] for row in rows] == [7.5125] * 4


def test_a_part_of_the_results_is_enough(folder, tmp_path, capsys):
    (tmp_path / "r.csv").write_text("network,ms\nnetwork_00003,2.5\nnetwork_00001.tflite,1.5\n\n")
    flags = (f"--output={folder}", f"--results={tmp_path / 'r.csv'}", f"--samples={tmp_path / 's.jsonl'}")
    assert measure("--device=csv", *flags) == 0
    assert "2 networks returned, 2 missing" in capsys.readouterr().out
    _, decisions, times = samples.table(get_space("ibn", depth_multiplier=0.25), tmp_path / "s.jsonl")
    manifest = json.loads((folder / phone.MANIFEST).read_text())
    assert times.tolist() == [1.5, 2.5]
    assert decisions[1].tolist() == manifest["networks"]["network_00003"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network_00001,1\n", "first line must be network,ms"),
        ("network,ms\nnetwork_00009,1\n", "line 2: network 'network_00009' is not in the manifest"),
        ("network,ms\nnetwork_00001,1\nnetwork_00001,1\n", "line 3: network 'network_00001' is there"),
        ("network,ms\nnetwork_00001,-1\n", "line 2: time is '-1'"),
        ("network,ms\nnetwork_00001,0\n", "line 2: time is '0'"),
        ("network,ms\nnetwork_00001,nan\n", "line 2: time is 'nan'"),
        ("network,ms\nnetwork_00001,fast\n", "line 2: time is 'fast'"),
        ("network,ms\nnetwork_00001,1,2\n", "line 2: 3 cells"),
        ("network,ms\n", "no results"),
    ],
)
def test_faults_of_a_csv_name_their_line(folder, tmp_path, text, message):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        phone.write_samples(folder, tmp_path / "r.csv", tmp_path / "s.jsonl")
    assert not (tmp_path / "s.jsonl").exists()


def test_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(InputError, match="manifest"):
        phone.read_results(tmp_path, None)
    (tmp_path / phone.MANIFEST).write_text("[]")
    with pytest.raises(InputError, match="is not a manifest"):
        phone.read_results(tmp_path, None)
