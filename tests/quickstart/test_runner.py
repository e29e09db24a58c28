"""Stages: resume, changed flags, exit codes."""

import pytest

from mobiledets_tf import architecture
from mobiledets_tf.cli import quickstart as command
from mobiledets_tf.errors import InputError
from mobiledets_tf.quickstart import pipeline
from mobiledets_tf.quickstart.options import QuickstartOptions
from mobiledets_tf.quickstart.runner import Stage, run_stages
from tflite_export.devices import edgetpu
from tflite_export.graphs import Settings, network_graph


def _stages(steps=1):
    train = Stage("b", "train", (f"--steps={steps}",))
    return [Stage("a", "data", ("--x=1",)), train, Stage("c", "export", ())]


def _run(path, stages, fail=None):
    ran = []

    def runner(arguments):
        ran.append(arguments[2].rsplit(".", 1)[1])
        return 3 if ran[-1] == fail else 0

    return run_stages(path, stages, [], runner), ran


def test_done_stages_are_skipped(tmp_path):
    assert _run(tmp_path, _stages()) == (0, ["data", "train", "export"])
    assert _run(tmp_path, _stages()) == (0, [])


def test_changed_flags_rerun_what_follows(tmp_path):
    _run(tmp_path, _stages())
    assert _run(tmp_path, _stages(2)) == (0, ["train", "export"])
    assert _run(tmp_path, _stages(2)) == (0, [])


def test_failure_stops_and_resumes(tmp_path):
    assert _run(tmp_path, _stages(), fail="train") == (3, ["data", "train"])
    assert _run(tmp_path, _stages()) == (0, ["train", "export"])


def test_nothing_stale_after_a_changed_stage_failed(tmp_path):
    _run(tmp_path, _stages())
    assert _run(tmp_path, _stages(2), fail="train") == (3, ["train"])
    assert _run(tmp_path, _stages(2)) == (0, ["train", "export"])


def test_a_missing_output_drops_stages_of_another_call(tmp_path):
    prepare = [Stage("a", "data", ("--x=1",), "records")]
    learn = [Stage("b", "train", (), "train")]
    for folder in ("records", "train"):
        (tmp_path / folder).mkdir()
    _run(tmp_path, prepare + learn)
    (tmp_path / "train" / "old").touch()
    (tmp_path / "records").rmdir()
    assert _run(tmp_path, prepare) == (0, ["data"])
    assert not (tmp_path / "train").exists()
    assert _run(tmp_path, prepare + learn)[1] == ["data", "train"]


def test_an_output_outside_is_refused(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    stages = [Stage("a", "data", ("--x=1",), "../outside")]
    _run(tmp_path / "work", stages)
    with pytest.raises(InputError, match="is outside the work folder"):
        _run(tmp_path / "work", [Stage("a", "data", ("--x=2",), "../outside")])
    assert outside.exists()


def test_wrong_device_and_folder_exit_2(tmp_path):
    assert command.run(["x", "--device=toaster"]) == 2
    assert command.run(["x", f"--work_dir={tmp_path}", f"--data={tmp_path / 'none'}"]) == 2
    assert not list(tmp_path.iterdir())


def test_a_device_gets_a_latency_model_and_a_target_in_its_own_unit(tmp_path):
    stages = pipeline.latency_stages(tmp_path, 5, QuickstartOptions(work_dir=tmp_path, device="edgetpu"))
    assert run_stages(tmp_path, stages, []) == 0
    network = network_graph(architecture.load("edgetpu").scaled(pipeline.DEPTH), Settings((160, 160), 5))
    expected = edgetpu.measure_graph(network, edgetpu.DEFAULT_VARIANT).median_ms
    assert pipeline.target(tmp_path / "latency_model.json") == pytest.approx(expected, rel=0.1)
    assert (tmp_path / "latency_model.png").exists()
