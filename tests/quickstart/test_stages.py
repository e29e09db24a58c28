"""Stages: resume, changed flags, exit codes."""

from mobiledets_tf.cli import quickstart as command
from mobiledets_tf.quickstart import Stage, run_stages


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


def test_wrong_device_and_folder_exit_2(tmp_path):
    assert command.run(["x", "--device=toaster"]) == 2
    assert command.run(["x", f"--work_dir={tmp_path}", f"--data={tmp_path / 'none'}"]) == 2
    assert not list(tmp_path.iterdir())
