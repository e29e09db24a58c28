"""A small real search: interrupted, resumed, reported."""

import json

import pytest

from mobiledets_tf import architecture
from mobiledets_tf.cli import data, latency, search


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(records, latency model) of a small sample."""
    folder = tmp_path_factory.mktemp("search")
    images, records, model = folder / "images", folder / "records", folder / "latency_model.json"
    counts = ("--num_train=60", "--num_val=4", "--image_size=96")
    assert data.run(["x", "--mode=sample", f"--output_dir={images}", *counts]) == 0
    assert data.run(["x", "--mode=convert", f"--images={images}", f"--output_dir={records}"]) == 0
    options = ("--search_space=ibn", "--image_size=96", "--num_classes=10", "--depth_multiplier=0.25")
    assert latency.run(["x", "--mode=fit", "--device=madds", f"--output={model}", *options]) == 0
    return records, model


def _flags(prepared, folder, **changed):
    records, model = prepared
    flags = {
        "search_space": "ibn", "train_data": records, "latency_model": model, "latency_target": 1e7,
        "model_dir": folder, "steps": 6, "image_size": 96, "depth_multiplier": 0.25, "batch_size": 4,
        "quality_batch": 4, "controller_learning_rate": 0.1,
    }  # fmt: skip
    return ["mobiledets-search", *(f"--{name}={value}" for name, value in (flags | changed).items())]


@pytest.mark.slow
def test_search_is_interrupted_goes_on_and_reports(prepared, tmp_path, monkeypatch, capsys):
    from mobiledets_tf.search import loop

    one_step = loop._Run._one_step

    def interrupt(self):
        if self.step == 3:
            raise KeyboardInterrupt
        return one_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_one_step", interrupt)
        assert search.run(_flags(prepared, tmp_path)) == 130
    state = json.loads((tmp_path / "search_state.json").read_text())
    assert state["step"] == 3 and not (tmp_path / "architecture.json").exists()

    assert search.run(_flags(prepared, tmp_path)) == 0
    report = json.loads((tmp_path / "search_report.json").read_text())
    assert [row["step"] for row in report["history"]] == [1, 2, 3, 4, 5, 6]
    assert report["history"][:3] == state["history"]
    assert (tmp_path / "search_report.png").stat().st_size > 1000
    found = architecture.load(tmp_path / "architecture.json")
    assert architecture.describe(found, 10, 96)["madds"] == report["cost"]

    capsys.readouterr()
    assert search.run(_flags(prepared, tmp_path, latency_target=2e7)) == 2
    assert "latency_target was 10000000.0, is 20000000.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"search_space": "ibn_fused"}, "search space name 'ibn'"),
        ({"depth_multiplier": 0.5}, "search space hash"),
        ({"image_size": 128}, "latency model is of 96x96"),
        ({"op_warmup_fraction": 0.5}, "rl_delay"),
        ({"train_data": "/nowhere"}, "no TFRecord files match"),
        ({"latency_target": 0}, "allowed are numbers above 0"),
    ],
)
def test_wrong_input_leaves_nothing(prepared, tmp_path, capsys, changed, message):
    folder = tmp_path / "new"
    assert search.run(_flags(prepared, folder, **changed)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not folder.exists()
