"""Networks timed elsewhere: files, manifest and commands out; times back in, faults named by row."""

import json

import pytest

from mobiledets_tf.cli import latency as command
from mobiledets_tf.errors import InputError
from mobiledets_tf.latency import samples
from mobiledets_tf.search_space import get_space
from tflite_export.devices import benchmark_log, phone
from tflite_export.tflite import model_file

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
    assert model_file.read(folder / files[3]).histogram()["CONV_2D"] > 20
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
    read = samples.load(tmp_path / "s.jsonl", get_space("ibn", depth_multiplier=0.25))
    manifest = json.loads((folder / phone.MANIFEST).read_text())
    assert read.times.tolist() == [1.5, 2.5]
    assert read.decisions[1].tolist() == manifest["networks"]["network_00003"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network_00001,1\n", "first line should be network,ms"),
        ("network,ms\nnetwork_00009,1\n", "line 2: network 'network_00009' is not in the manifest"),
        ("network,ms\nnetwork_00001,1\nnetwork_00001,1\n", "line 3: network 'network_00001' occurs twice"),
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
    with pytest.raises(InputError, match="is not a JSON object"):
        phone.read_results(tmp_path, None)
    (tmp_path / phone.MANIFEST).write_text("{}")
    with pytest.raises(InputError, match="is not a manifest"):
        phone.read_results(tmp_path, None)


LOGS = {
    "INFO: [benchmark_litert_model.h:100] Inference (avg):      2.50 ms (400 runs)\n"
    "INFO: [benchmark_litert_model.h:102] Inference (min):      2.41 ms\n"
    "INFO: [benchmark_litert_model.h:103] Inference (std):      0.01\n": (2.5, 400, 2.41),
    "Running benchmark for 50 iterations\nno stats: 2500.0\n": (2.5, 50, None),
    "Inference timings in us: Init: 5, First inference: 9000, Warmup (avg): 8000, Inference (avg): 7.5e3\n": (
        7.5,
        0,
        None,
    ),
}


@pytest.mark.parametrize("text", LOGS)
def test_logs_of_each_generation_are_read(text):
    timing = benchmark_log.parse(text)
    assert (timing.ms, timing.runs, timing.figures.get("min")) == pytest.approx(LOGS[text])


def test_a_log_that_is_not_understood_is_named(folder, tmp_path, capsys):
    for name in (phone.MANIFEST, phone.COMMANDS):
        (tmp_path / name).write_text((folder / name).read_text())
    (tmp_path / "network_00002.log").write_text("Segmentation fault\n")
    with pytest.raises(InputError, match="network_00002.log.*no timing that can be parsed"):
        phone.read_results(tmp_path, None)
    (tmp_path / "network_00001.log").write_text(next(iter(LOGS)))
    assert phone.read_results(tmp_path, None) == {"network_00001": 2.5}
    flags = (f"--output={tmp_path}", "--results=logs", f"--samples={tmp_path / 's.jsonl'}")
    assert measure("--device=adb", *flags) == 0
    assert "logs that could not be parsed: 1 (" in capsys.readouterr().err


def test_the_script_skips_what_each_generation_has_written(folder, tmp_path):
    import subprocess

    (tmp_path / phone.COMMANDS).write_text((folder / phone.COMMANDS).read_text())
    for number, text in enumerate(LOGS):
        (tmp_path / f"network_{number:05d}.log").write_text(text)
    (tmp_path / "network_00003.log").write_text("Segmentation fault\n")
    adb = tmp_path / "adb"
    adb.write_text('#!/bin/sh\necho "$@" >> called\n')
    adb.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", phone.COMMANDS], cwd=tmp_path, env=environment, check=False)
    called = (tmp_path / "called").read_text()
    assert "network_00003.tflite" in called and "network_00000.tflite" not in called
    assert "network_00001.tflite" not in called and "network_00002.tflite" not in called
