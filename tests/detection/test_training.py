"""A training end to end on a tiny set, and everything that can be wrong before one starts."""

import json
import math
import os
import shutil
import signal

import pytest

from mobiledets_tf import architecture
from mobiledets_tf.cli import train as command
from mobiledets_tf.compat import tf
from mobiledets_tf.data.record_index import RecordIndex
from mobiledets_tf.detection import best, evaluate, model_dir, pipeline_config, train, training_config
from mobiledets_tf.detection.ordered_input import Records
from mobiledets_tf.detection.pipeline_config import Overrides
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.folder_lock import locked
from mobiledets_tf.models.fresh_start import residual_scales
from mobiledets_tf.weights import checkpoints

SMALL = ("--architecture=edgetpu", "--image_size=96", "--depth_multiplier=0.25", "--batch_size=4")
STEPS = 20


def run(*flags: str) -> int:
    return command.run(["mobiledets-train", *flags])


def summaries(folder) -> set[str]:
    """The names of all TensorBoard summaries."""
    events = (e for path in folder.glob("events.*") for e in tf.compat.v1.train.summary_iterator(str(path)))
    return {value.tag for event in events for value in event.summary.value}


@pytest.mark.slow
def test_training_is_interrupted_and_goes_on(tiny, loss_curve, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "model"
    data = (f"--train_data={tiny}", f"--model_dir={folder}")
    flags = (*SMALL, *data, f"--steps={STEPS}", "--learning_rate=0.02")
    plain = train._Run._flush

    def stop(run, bar):
        faulty = plain(run, bar)
        if run._now == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return faulty

    with monkeypatch.context() as patch:
        patch.setattr(train._Run, "_flush", stop)
        assert run(*flags) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert checkpoints.step(folder) == 12 and not best.find(folder)[0].endswith("best-12")

    assert run(*flags) == 0
    output = capsys.readouterr()
    assert f"trained to step {STEPS}" in output.out and "missed" in output.out
    assert "images/s" in output.err and "deprecated" not in output.err
    assert [checkpoints.step(path) for path in checkpoints.kept(folder)] == [0, 4, 8, 12, 16, 20]
    scales = residual_scales(architecture.load("edgetpu"))
    first, last = (checkpoints.values(checkpoints.kept(folder)[number]) for number in (0, -1))
    assert not any(first[name].any() for name in scales) and all(last[name].any() for name in scales)
    curve = loss_curve(folder / "train")
    assert set(curve) == set(range(1, STEPS + 1))
    # One rate for each step, on the cosine, also across the stop. The loss of four images goes up
    # and down by a quarter, so that twenty steps say nothing about it.
    rates = loss_curve(folder / "train", "learning_rate")
    assert all(rates[step + 1] < rates[step] for step in range(2, STEPS))
    assert rates[13] == pytest.approx(0.01 * (1 + math.cos(math.pi * 12 / 19)), abs=0.002)
    assert all(math.isfinite(loss) for loss in curve.values())
    assert (folder / "training_curve.png").stat().st_size > 1000
    metrics = json.loads((folder / "eval_metrics.json").read_text())
    assert [entry["step"] for entry in metrics] == [4, 8, 12, 16, 20]
    assert all(-1 <= entry["AP50"] <= 1 and entry["loss"] > 0 for entry in metrics)
    assert {path.name for path in folder.iterdir()} >= {
        "architecture.json",
        "label_map.pbtxt",
        "pipeline.config",
        "settings.json",
        "train",
        "eval",
    }
    assert summaries(folder / "eval") >= {"AP", "AP/red", "AP/blue", "Loss/loss", "detections"}
    [kept] = best.find(folder)
    top = max(metrics, key=lambda entry: entry["AP"])
    assert checkpoints.step(kept) == top["step"] and kept.endswith(f"best-{top['step']}")

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
    results = json.loads((moved / "eval_detections.json").read_text())
    assert {result["category_id"] for result in results} <= {1, 2} and len(results) > 10
    assert {result["image_id"] for result in results} <= set(range(5))


@pytest.mark.slow
def test_a_training_learns_in_float32_and_in_mixed_precision(tiny, loss_curve, tmp_path):
    curves = {}
    for name, flag in (("float32", ()), ("mixed", ("--mixed_precision",))):
        folder = tmp_path / name
        flags = (*SMALL, *flag, f"--train_data={tiny}", f"--model_dir={folder}", "--learning_rate=0.05")
        assert run(*flags, "--steps=60", "--mode=train") == 0
        curve = loss_curve(folder / "train")
        curves[name] = [curve[step] for step in sorted(curve)]
        assert {value.dtype.name for value in checkpoints.values(folder).values()} == {"float32"}
    # From 4.3 to 1.5 in 60 steps of four images.
    for curve in curves.values():
        assert sum(curve[-10:]) < 0.6 * sum(curve[:10])
    assert curves["mixed"][0] == pytest.approx(curves["float32"][0], rel=0.01)


def test_a_training_stops_early_and_keeps_its_best(tmp_path, monkeypatch):
    measured = {10: 0.1, 20: 0.3, 30: 0.2, 40: 0.3, 50: 0.25, 60: 0.9}

    class Evaluator:
        def __init__(self, *_):
            pass

        def evaluate(self, checkpoint):
            step = checkpoints.step(checkpoint)
            return evaluate.Evaluation({"step": step, "AP": measured[step]}, {}, [], ())

    monkeypatch.setattr(evaluate, "Evaluator", Evaluator)
    monkeypatch.setattr(best.model_dir, "load", lambda folder: None)
    monkeypatch.setattr(evaluate.curve, "draw", lambda *_: None)
    step = tf.Variable(0, dtype=tf.int64)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(step=step), tmp_path, max_to_keep=None)

    def ends(watch, at: int) -> bool:
        step.assign(at)
        return watch(manager.save())

    watch = best.Watch(tmp_path, early_stop=2)
    assert [ends(watch, at) for at in (10, 20, 30)] == [False, False, False]
    # One that goes on knows what was before; an equal AP is no better one.
    assert ends(best.Watch(tmp_path, early_stop=2), 40)
    assert [checkpoints.step(path) for path in best.find(tmp_path)] == [20]
    # Without the flag, it goes on; so does one that got better at last.
    assert not ends(best.Watch(tmp_path), 50) and not ends(best.Watch(tmp_path, early_stop=2), 60)
    assert [checkpoints.step(path) for path in best.find(tmp_path)] == [60]


@pytest.fixture
def started(tiny, tmp_path):
    """A started training without a step, its config and its label map."""
    config, label_map = training_config.train_config(
        training_config.Job(
            str(tmp_path / "model"), train_data=str(tiny), overrides=Overrides("edgetpu", steps=100)
        )
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
    with pytest.raises(InputError, match="belongs to another network"):
        train.train(folder, train.Options())


def test_a_folder_in_use_is_refused(started):
    _, _, folder = started
    before = sorted(os.listdir(folder))
    with locked(folder), pytest.raises(InputError, match="is in use by another run"):
        train.train(folder, train.Options())
    assert sorted(os.listdir(folder)) == sorted([*before, ".lock"])


def test_an_evaluation_of_a_part_is_no_result():
    evaluate.check_complete(5, 5)
    with pytest.raises(CheckFailed, match="4 of 5 images"):
        evaluate.check_complete(4, 5)


def test_a_part_of_the_loss_is_named_before_the_total():
    assert train.faulty_part({"Loss/total_loss": 1.0}) is None
    parts = {"Loss/total_loss": math.nan, "Loss/localization_loss": math.nan, "Loss/x": 1.0}
    assert train.faulty_part(parts) == "Loss/localization_loss"
    assert train.faulty_part({"Loss/total_loss": math.inf}) == "Loss/total_loss"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_goes_back_once_and_then_stops(started, monkeypatch):
    config, label_map, folder = started
    small = Overrides("edgetpu", steps=20, batch_size=4, image_size=(96, 96), depth_multiplier=0.25)
    config = pipeline_config.override(config, small)
    folder = folder.with_name("nan")
    model_dir.start(folder, config, label_map, seed=3)
    said = []
    monkeypatch.setattr(train.tqdm, "write", lambda text: said.append(text))
    calls: list[int] = []

    def faulty(losses):
        calls.append(0)
        return "Loss/localization_loss" if len(calls) > 4 else None

    monkeypatch.setattr(train, "faulty_part", faulty)
    with pytest.raises(
        CheckFailed, match="Loss/localization_loss is .* at step 5, images .*, again after resuming"
    ):
        train.train(folder, train.Options(seed=3))
    assert len(said) == 1 and "resuming from the checkpoint of step 4" in said[0]
    records = Records(list(config.train_input_reader.tf_record_input_reader.input_path))
    assert ", ".join(records.image_ids(4, 4, seed=3)) in said[0]
    assert checkpoints.step(folder) == 4


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 100, 1009, 1200, 400_000])
def test_a_training_is_saved_five_times_and_at_least_every_thousand_steps(steps):
    interval = train.checkpoint_interval(steps)
    assert 1 <= interval <= max(1, min(1000, steps // 5))


def flipped(tiny, folder):
    """The tiny set with one bit of its third training record changed."""
    shutil.copytree(tiny, folder)
    file = folder / "train-00000-of-00001.tfrecord"
    data = bytearray(file.read_bytes())
    place = RecordIndex([str(file)])._places[2][1] + 500
    data[place] ^= 1
    file.write_bytes(data)
    return folder


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
        "no network": ((data,), "--architecture or --pipeline_config is required"),
        "no data": (("--architecture=cpu",), "--train_data is required"),
        "malformed JSON": ((f"--architecture={tmp_path}/architecture.json", data), "is not valid JSON"),
        "missing data": (("--architecture=cpu", f"--train_data={tmp_path}/none"), "no TFRecord files match"),
        "empty data": (("--architecture=cpu", f"--train_data={empty}"), "contains no examples"),
        "damaged data": (
            ("--architecture=cpu", f"--train_data={tmp_path}/damaged", "--mode=train"),
            "is damaged at byte offset 0",
        ),
        "small image": (("--architecture=cpu", data, "--image_size=64"), "image size 64"),
        "no steps": (("--architecture=cpu", data, "--steps=0"), "--steps=0"),
        "mode": (("--architecture=cpu", data, "--mode=evaluate"), "did you mean 'eval'"),
        "missing config": (("--pipeline_config=none.config", data), "none.config' does not exist"),
        "malformed config": ((f"--pipeline_config={config}", data), "line 2"),
        "other classes": ((sample, data), "classes don't match the head"),
        "label map": (("--architecture=cpu", f"--train_data={classes}", "--num_classes=2"), "num_classes 2"),
        "labels": (("--architecture=cpu", f"--train_data={one_class}"), "allowed by the head: 1 to 1"),
        "damaged record": (
            ("--architecture=cpu", f"--train_data={flipped(tiny, tmp_path / 'flipped')}", "--mode=train"),
            "is damaged at byte offset",
        ),
        "quantised from nothing": (("--architecture=cpu", data, "--quantization_aware"), "requires --init_"),
        "tuned from nothing": (("--architecture=cpu", data, "--preset=finetune"), "requires --init_"),
        "missing weights": (("--architecture=cpu", data, "--init_from=none"), "=none does not exist"),
        "no evaluation": (("--architecture=cpu", data, "--mode=train", "--early_stop=2"), "--early_stop"),
        "nothing to evaluate": (("--mode=eval",), "contains no training run"),
    }


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
