"""The API and the commands write the same files: equal to the byte where nothing depends on the time."""

import filecmp
import json

import numpy as np
import pytest

from mobiledets_tf import api, architecture, latency
from mobiledets_tf.cli import data, detect, export, import_weights, search, train
from mobiledets_tf.cli import latency as latency_command
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.search_space import decode
from mobiledets_tf.weights import checkpoints

SIZE = {"image_size": 96, "depth_multiplier": 0.25}


def run(command, *more, **flags) -> int:
    """Runs a command; values of flags are those of options."""
    words = (
        f"--{name}" if value is True else f"--no{name}" if value is False else f"--{name}={value}"
        for name, value in flags.items()
    )
    return command.run(["test", *words, *more])


def same_files(one, other, *names) -> None:
    _, different, missing = filecmp.cmpfiles(one, other, names, shallow=False)
    assert (different, missing) == ([], [])


def test_samples_and_records(sample, records, tmp_path):
    counts = {"num_train": 24, "num_val": 4, "image_size": 96}
    assert run(data, mode="sample", output_dir=tmp_path / "images", **counts) == 0
    names = [str(path.relative_to(sample)) for path in sample.rglob("*") if path.is_file()]
    assert len(names) == 30
    same_files(sample, tmp_path / "images", *names)
    assert run(data, mode="convert", images=sample, output_dir=tmp_path / "records") == 0
    same_files(records, tmp_path / "records", *(path.name for path in records.iterdir()))


def test_one_split_is_divided_alike(sample, tmp_path):
    single = tmp_path / "single"
    single.mkdir()
    (single / "train").symlink_to(sample / "train")
    (single / "instances_train.json").symlink_to(sample / "instances_train.json")
    given = {"images": single, "val_share": 0.25}
    dataset = api.convert_data(api.ConvertOptions(output_dir=tmp_path / "a", **given))
    assert dataset["splits"]["val"]["images"] == 6
    assert run(data, mode="convert", output_dir=tmp_path / "b", **given) == 0
    same_files(tmp_path / "a", tmp_path / "b", *(path.name for path in (tmp_path / "a").iterdir()))


def test_faults_are_returned_by_the_check_and_stop_a_conversion(sample, tmp_path):
    content = json.loads((sample / "instances_val.json").read_text())
    content["annotations"][0]["category_id"] = 99
    (tmp_path / "val").symlink_to(sample / "val")
    (tmp_path / "instances_val.json").write_text(json.dumps(content))
    (split,) = api.check_data(api.DataOptions(images=tmp_path))
    assert len(split.faults) == 1 and "99" in str(split.faults[0])
    with pytest.raises(CheckFailed, match="1 faults in .*99"):
        api.convert_data(api.ConvertOptions(images=tmp_path, output_dir=tmp_path / "records"))
    assert not (tmp_path / "records").exists()


def test_latency_models(tmp_path):
    space = {"search_space": "ibn", "num_classes": 10, **SIZE}
    model = api.fit_multiply_adds(tmp_path / "a.json", **space)
    assert run(latency_command, mode="fit", device="madds", output=tmp_path / "b.json", **space) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert model.coefficients.tolist() == latency.load(tmp_path / "a.json").coefficients.tolist()


def test_samples_and_fits_of_a_device(tmp_path, capsys):
    """The Edge TPU's latency is a formula, so that two runs give equal times."""
    given = {"device": "edgetpu", "search_space": "ibn", "networks": 60, "seed": 3, "num_classes": 10, **SIZE}
    done = api.measure_latency(api.MeasureOptions(output=tmp_path / "a.jsonl", **given))
    assert (done["measured"], done["failed"], done["kind"]) == (60, 0, "modelled")
    assert run(latency_command, mode="measure", output=tmp_path / "b.jsonl", **given) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    model = api.fit_latency(tmp_path / "a.jsonl", tmp_path / "a.json")
    assert (tmp_path / "a.png").exists() and model.info["held_out"]["n"] > 0
    # The command that the file names writes the same file.
    before, words = (tmp_path / "a.json").read_bytes(), model.info["command"].split()
    assert latency_command.run(words) == 0
    after = json.loads((tmp_path / "a.json").read_text())
    assert after["coefficients"] == json.loads(before)["coefficients"]
    low, high = np.percentile(
        [json.loads(line)["ms"] for line in (tmp_path / "a.jsonl").open() if "ms" in line], (10, 90)
    )
    banded = api.MeasureOptions(
        output=tmp_path / "c.jsonl", sampling="band", band=(low, high), model=tmp_path / "a.json", **given
    )
    api.measure_latency(banded)
    inside = given | {"sampling": "band", "band": f"{low},{high}", "model": tmp_path / "a.json"}
    assert run(latency_command, mode="measure", output=tmp_path / "d.jsonl", **inside) == 0
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "d.jsonl").read_bytes()
    with pytest.raises(InputError, match="--sampling=band requires --band"):
        api.measure_latency(api.MeasureOptions(output=tmp_path / "e", sampling="band", device="edgetpu"))


def test_descriptions():
    expected = architecture.describe(architecture.load("dsp").scaled(0.5), 7, 192)
    assert api.describe("dsp", 7, 192, 0.5) == expected
    assert api.describe(architecture.load("dsp"), 7, 192, 0.5) == expected


@pytest.mark.slow
def test_trainings(records, tmp_path, capsys):
    given = {"architecture": "edgetpu", "train_data": records, "batch_size": 4, "steps": 4, "seed": 5, **SIZE}
    given |= {"learning_rate": 0.02, "random_color": True}
    result = api.train(api.TrainOptions(model_dir=tmp_path / "a", **given))
    assert run(train, model_dir=tmp_path / "b", **given) == 0
    capsys.readouterr()
    assert result.step == 4 and result.best and result.metrics[-1]["step"] == 4
    same_files(tmp_path / "a", tmp_path / "b", "architecture.json", "label_map.pbtxt", "settings.json")
    ours, theirs = ((tmp_path / name / "pipeline.config").read_text() for name in "ab")
    assert ours.replace(str(tmp_path / "a"), str(tmp_path / "b")) == theirs
    ours, theirs = (checkpoints.values(tmp_path / name) for name in "ab")
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])
    again = api.evaluate(tmp_path / "a")[-1].metrics
    assert again["step"] == 4 and again["AP"] == pytest.approx(result.metrics[-1]["AP"])
    # The command resumes what the API has begun.
    assert run(train, mode="train", model_dir=tmp_path / "a", **given | {"steps": 5}) == 0
    assert "trained to step 5" in capsys.readouterr().out


@pytest.mark.parametrize("preset", ["small", "tunas"])
def test_settings_of_a_search(preset, records, tmp_path, monkeypatch):
    from mobiledets_tf.search import loop

    found = []

    model = api.fit_multiply_adds(tmp_path / "cost.json", "ibn", num_classes=10, **SIZE)

    def searched(search, strategy, times):
        found.append((search.settings(), times))
        return decode(model.space, np.zeros(len(model.space.decisions), np.int32))

    monkeypatch.setattr(loop, "run", searched)
    given = {
        "search_space": "ibn",
        "train_data": records,
        "latency_model": tmp_path / "cost.json",
        "latency_target": 1e7,
        "preset": preset,
        "finalists": 3,
        "beta": -0.2,
        "steer_by": "madds",
        "measure_finalists": False,
        "model_dir": tmp_path / "search",
        "seed": 4,
        **SIZE,
    }
    api.search(api.SearchOptions(**given))
    assert run(search, **given) == 0
    assert found[0] == found[1]
    settings, times = found[0]
    assert (settings["seed"], settings["finalists"], settings["steered_by"], times) == (4, 3, "madds", None)
    assert settings["algorithm"] == ("evolution" if preset == "small" else "tunas")


@pytest.mark.slow
def test_searches(records, tmp_path, capsys):
    api.fit_multiply_adds(tmp_path / "cost.json", "ibn", num_classes=10, **SIZE)
    given = {
        "search_space": "ibn",
        "train_data": records,
        "latency_model": tmp_path / "cost.json",
        "latency_target": 1e7,
        "steps": 6,
        "batch_size": 4,
        "rl_batch_multiplier": 1,
        "finalists": 2,
        "finalist_steps": 0,
        "quality_images": 4,
        "judge_images": 4,
        "population": 2,
        "children": 2,
        "rounds": 1,
        **SIZE,
    }
    network = api.search(api.SearchOptions(model_dir=tmp_path / "a", **given))
    assert run(search, model_dir=tmp_path / "b", **given) == 0
    same_files(tmp_path / "a", tmp_path / "b", "architecture.json", "settings.json", "label_map.pbtxt")
    assert network == architecture.load(tmp_path / "a" / "architecture.json")
    assert abs(latency.load(tmp_path / "cost.json").predict_one(network.origin.decisions) / 1e7 - 1) <= 0.03
    # The command goes on with the search of the API: all its settings are the same.
    capsys.readouterr()
    assert run(search, model_dir=tmp_path / "a", **given) == 0
    assert "searched to step 6" in capsys.readouterr().out
    with pytest.raises(InputError, match="seed"):
        api.search(api.SearchOptions(model_dir=tmp_path / "a", **given | {"seed": 1}))


@pytest.mark.slow
def test_exports_imports_and_detections(tmp_path, sample, capsys):
    given = {"architecture": "edgetpu", "num_classes": 10, "calibration_images": 2, "seed": 2, **SIZE}
    wrapped = []

    def progress(items, total, *_):
        wrapped.append(total)
        return items

    report = api.export(api.ExportOptions(output_dir=tmp_path / "a", **given), progress)
    assert wrapped[0] == 2
    assert run(export, output_dir=tmp_path / "b", **given) == 0
    same_files(tmp_path / "a", tmp_path / "b", "detector.tflite", "labels.txt", "architecture.json")
    written = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["file"] == written["file"] and report["weights"].startswith("fresh")
    with pytest.raises(InputError, match="--max_ap_drop requires --eval_data"):
        api.export(api.ExportOptions(output_dir=tmp_path / "c", max_ap_drop=0.1, **given))

    model = tmp_path / "a" / "detector.tflite"
    verdict = api.compile(api.CompileOptions(model=model, output_dir=tmp_path / "compiled"))
    assert isinstance(verdict["ready"], bool) and verdict["target"] == "edgetpu"
    timed = api.benchmark(api.BenchmarkOptions(model=model, runs=3))
    assert timed["median_ms"] > 0 and timed["kind"] == "measured" and timed["runs"] >= 3

    images = {"model": model, "images": sample / "val", "score_threshold": 0.0, "draw": False}
    summary = api.detect(api.DetectOptions(output_dir=tmp_path / "found_a", **images))
    assert run(detect, output_dir=tmp_path / "found_b", **images) == 0
    same_files(tmp_path / "found_a", tmp_path / "found_b", "detections.json", "images.json")
    assert (summary.images, summary.unread, summary.interrupted) == (4, {}, False)
    assert summary.detections > 0

    taken = {"weights": model, "architecture": "edgetpu", "depth_multiplier": 0.25}
    account = api.import_weights(api.ImportOptions(output_dir=tmp_path / "own_a", **taken))
    assert run(import_weights, output_dir=tmp_path / "own_b", **taken) == 0
    same_files(tmp_path / "own_a", tmp_path / "own_b", "import.json", "architecture.json", "settings.json")
    assert account.target.num_classes == 10
    ours, theirs = (checkpoints.values(tmp_path / name) for name in ("own_a", "own_b"))
    assert all((value == theirs[name]).all() for name, value in ours.items())


def test_exit_codes_of_stages_become_errors(monkeypatch, tmp_path):
    from mobiledets_tf.quickstart import pipeline

    for code, error in ((1, CheckFailed), (2, InputError), (130, KeyboardInterrupt), (-9, CheckFailed)):
        monkeypatch.setattr(pipeline, "run", lambda options, code=code: (code, None))
        with pytest.raises(error):
            api.quickstart(api.QuickstartOptions(work_dir=tmp_path))
    monkeypatch.setattr(pipeline, "run", lambda options: (0, {"int8_AP": 0.5}))
    assert api.quickstart(api.QuickstartOptions(work_dir=tmp_path)) == {"int8_AP": 0.5}
