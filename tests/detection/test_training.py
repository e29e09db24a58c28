"""A training end to end on a tiny set, and everything that can be wrong before one starts."""

import json
import math
import shutil

import pytest

from mobiledets_tf.cli import train as command
from mobiledets_tf.compat import tf
from mobiledets_tf.detection import checkpoints, evaluate, jobs, model_dir, pipeline_config, train
from mobiledets_tf.detection.pipeline_config import Overrides
from mobiledets_tf.errors import CheckFailed, InputError

SMALL = ("--architecture=edgetpu", "--image_size=96", "--depth_multiplier=0.25", "--batch_size=4")
STEPS = 20


def run(*flags: str) -> int:
    return command.run(["mobiledets-train", *flags])


def losses(folder) -> dict[int, float]:
    """Step -> total loss of the training, from the TensorBoard summaries."""
    found = {}
    for path in sorted(folder.glob("events.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "Loss/total_loss":
                    found[event.step] = float(tf.make_ndarray(value.tensor))
    return found


@pytest.mark.slow
def test_training_is_interrupted_goes_on_and_learns(tiny, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "model"
    data = (f"--train_data={tiny}", f"--model_dir={folder}")
    flags = (*SMALL, *data, f"--steps={STEPS}", "--learning_rate=0.02")
    check_finite = train._check_finite

    def interrupt(values, step):
        check_finite(values, step)
        if step == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "_check_finite", interrupt)
        assert run(*flags) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert checkpoints.step(folder) == 8

    assert run(*flags) == 0
    output = capsys.readouterr()
    assert f"trained to step {STEPS}" in output.out
    assert "images/s" in output.err and "deprecated" not in output.err
    assert [checkpoints.step(path) for path in checkpoints.kept(folder)] == [0, 4, 8, 12, 16, 20]
    curve = losses(folder / "train")
    assert set(curve) >= {1, 8, 12, 20}
    # From small start kernels the L2 part, which falls first, is no longer a part of the fall.
    assert curve[20] < 0.8 * curve[1]
    assert (folder / "training_curve.png").stat().st_size > 1000
    metrics = json.loads((folder / "eval_metrics.json").read_text())
    assert [entry["step"] for entry in metrics] == [4, 8, 12, 16, 20]
    assert all(-1 <= entry["AP50"] <= 1 and entry["loss"] > 0 for entry in metrics)
    assert {path.name for path in folder.iterdir()} >= {
        "architecture.json", "label_map.pbtxt", "pipeline.config", "settings.json", "train", "eval",
    }  # fmt: skip

    # A third call has nothing to do; other settings are refused, and nothing is changed by that.
    config_before = (folder / "pipeline.config").read_text()
    assert run(*flags, "--mode=train") == 0
    assert run(*flags, "--batch_size=8") == 2
    message = capsys.readouterr().err
    assert "pipeline.train_config.batch_size was 4, now 8" in message and message.count("\n") == 1
    assert (folder / "pipeline.config").read_text() == config_before

    # The folder works where it is moved to, and its own evaluation is repeatable.
    moved = folder.rename(tmp_path / "moved")
    assert run("--mode=eval", f"--model_dir={moved}") == 0
    assert json.loads((moved / "eval_metrics.json").read_text()) == metrics


@pytest.fixture
def started(tiny, tmp_path):
    """A started training without a step, its config and its label map."""
    config, label_map = jobs.train_config(
        jobs.Job(str(tmp_path / "model"), train_data=str(tiny), overrides=Overrides("edgetpu", steps=100))
    )
    return model_dir.start(tmp_path / "model", config, label_map, seed=0), label_map, tmp_path / "model"


def test_steps_may_grow_and_nothing_else(started):
    config, label_map, folder = started
    longer = pipeline_config.override(config, Overrides(steps=200))
    model_dir.start(folder, longer, label_map, seed=0)
    assert model_dir.load(folder).train_config.num_steps == 200
    for other, seed, words in (
        (config, 1, "seed was 0, now 1"),
        (pipeline_config.override(config, Overrides("dsp")), 0, "architecture.name was edgetpu, now dsp"),
        (pipeline_config.override(config, Overrides(random_flip=True)), 0, "data_augmentation_options"),
    ):
        with pytest.raises(InputError, match=words):
            model_dir.start(folder, other, label_map, seed)


def test_a_foreign_folder_is_left_alone(started):
    config, label_map, folder = started
    (folder / "settings.json").unlink()
    checkpoints.save({"x": tf.Variable(1.0)}, folder)
    with pytest.raises(InputError, match="has checkpoints but no settings.json"):
        model_dir.start(folder, config, label_map, seed=0)


def test_checkpoints_of_another_network_stop_a_training(started):
    _, _, folder = started
    checkpoints.save({"stem_conv/kernel:0": tf.Variable(tf.zeros((3, 3, 3, 8)))}, folder)
    with pytest.raises(InputError, match="is of another network"):
        train.train(folder, seed=0)


def test_an_evaluation_that_stops_early_is_no_result():
    batches = evaluate._Counted([1, 2, 3], None, "test")
    for batch in batches:
        if batch == 2:
            break
    with pytest.raises(CheckFailed, match="batch 2"):
        batches.finish()
    assert list(batches) == [1, 2, 3]


def test_losses_have_to_be_finite():
    train._check_finite({"Loss/total_loss": 1.0}, 3)
    with pytest.raises(CheckFailed, match="Loss/total_loss is nan at step 3"):
        train._check_finite({"Loss/total_loss": math.nan}, 3)


@pytest.mark.parametrize("start", [0, 240, 7])
@pytest.mark.parametrize("steps", [1, 2, 19, 20, 100, 1009, 1200, 1201, 400_000, 400_009])
def test_a_plan_covers_every_step_and_ends_with_a_checkpoint(start, steps):
    position = start
    for leg in train.plan(start, steps):
        length = leg.goal - position
        assert length > 0 and length % leg.checkpoint_interval == 0
        assert leg.checkpoint_interval % leg.log_interval == 0
        assert leg.checkpoint_interval <= max(1000, steps // 5)
        position = leg.goal
    assert position == max(start, steps)
    assert len(train.plan(start, steps)) <= 2


def wrong(tiny, empty, tmp_path) -> dict[str, tuple[tuple[str, ...], str]]:
    """Name -> flags that are wrong, and words of the message."""
    data, config = f"--train_data={tiny}", tmp_path / "bad.config"
    config.write_text("model {\n  sdd { }\n}")
    classes = shutil.copytree(tiny, tmp_path / "three")
    with open(classes / "label_map.pbtxt", "a", encoding="utf-8") as label_map:
        label_map.write("item {\n  id: 3\n  name: 'green'\n}\n")
    one_class = shutil.copytree(tiny, tmp_path / "one")
    (one_class / "label_map.pbtxt").write_text("item {\n  id: 1\n  name: 'red'\n}\n")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "train-00000-of-00001.tfrecord").write_bytes(b"no records, but some bytes")
    shutil.copy(tiny / "label_map.pbtxt", tmp_path / "damaged")
    (tmp_path / "architecture.json").write_text('{"schema_version": 1,')
    sample = "--pipeline_config=object_detection_configs/ssdlite_mobiledet_sample_160x160.config"
    return {
        "typo": (("--architecture=edgetpuu", data), "did you mean 'edgetpu'"),
        "no network": ((data,), "--architecture or --pipeline_config is needed"),
        "no data": (("--architecture=cpu",), "--train_data is needed"),
        "malformed JSON": ((f"--architecture={tmp_path}/architecture.json", data), "is not valid JSON"),
        "missing data": (("--architecture=cpu", f"--train_data={tmp_path}/none"), "no TFRecord files match"),
        "empty data": (("--architecture=cpu", f"--train_data={empty}"), "holds no examples"),
        "damaged data": (
            ("--architecture=cpu", f"--train_data={tmp_path}/damaged", "--mode=train"), "cannot be read",
        ),
        "small image": (("--architecture=cpu", data, "--image_size=64"), "image size 64"),
        "no steps": (("--architecture=cpu", data, "--steps=0"), "--steps=0"),
        "mode": (("--architecture=cpu", data, "--mode=evaluate"), "did you mean 'eval'"),
        "missing config": (("--pipeline_config=none.config", data), "none.config does not exist"),
        "malformed config": ((f"--pipeline_config={config}", data), "line 2"),
        "other classes": ((sample, data), "categories don't match the head"),
        "label map": (("--architecture=cpu", f"--train_data={classes}", "--num_classes=2"), "num_classes 2"),
        "labels": (("--architecture=cpu", f"--train_data={one_class}"), "the head has classes 1 to 1"),
        "nothing to evaluate": (("--mode=eval",), "holds no training"),
    }  # fmt: skip


def test_wrong_input_gets_one_line_and_leaves_nothing(tiny, empty, tmp_path, capsys):
    folder = tmp_path / "model"
    for name, (flags, words) in wrong(tiny, empty, tmp_path).items():
        assert run(f"--model_dir={folder}", *flags) == 2, name
        message = capsys.readouterr().err
        assert words in message and message.count("\n") == 1, (name, message)
        assert not folder.exists(), name


def test_help_and_wrong_flags_need_no_tensorflow():
    import subprocess
    import sys

    code = (
        "import sys; from mobiledets_tf.cli import train;"
        "code = train.run(['train', '--model_dir=x', '--stps=3']);"
        "sys.exit(10 * ('tensorflow' in sys.modules) + code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and "did you mean 'steps'" in ran.stderr
