"""The rank report against ranks that can be counted by hand, and its wrong inputs."""

import json

import pytest

from mobiledets_tf.cli import rank as command
from mobiledets_tf.errors import InputError
from mobiledets_tf.search import rank
from mobiledets_tf.search_space import get_space


def _rows(shared, alone):
    return [{"shared": s, "alone": a} for s, a in zip(shared, alone, strict=True)]


def test_tau_counts_pairs():
    # Of six pairs five are in the same order, one in the other.
    found = rank.report(_rows([1, 2, 3, 4], [10, 20, 40, 30]), "AP")
    assert found["kendall_tau"] == pytest.approx((5 - 1) / 6)
    assert found["spearman_rho"] == pytest.approx(0.8)
    assert rank.report(_rows([1, 2, 3], [3, 2, 1]), "AP")["kendall_tau"] == pytest.approx(-1)


def test_no_order_gives_no_tau(tmp_path):
    found = rank.report(_rows([0, 0, 0], [1, 2, 3]), "AP50")
    assert found["kendall_tau"] is None
    rank.draw(tmp_path / "rank.png", found)
    assert (tmp_path / "rank.png").stat().st_size > 1000
    with pytest.raises(InputError, match="needs 3 and more"):
        rank.report(_rows([0, 1], [0, 1]), "AP")


def test_networks_follow_the_seed():
    space = get_space("ibn", depth_multiplier=0.25)
    first = rank.sample_networks(space, 5, 0)
    assert first.shape == (5, len(space.decisions))
    assert (first == rank.sample_networks(space, 5, 0)).all()
    assert (first != rank.sample_networks(space, 5, 1)).any()


def test_a_folder_without_a_search_is_refused(tmp_path, capsys):
    flags = ["x", f"--search_dir={tmp_path}", f"--model_dir={tmp_path / 'rank'}"]
    assert command.run(flags) == 2
    assert "holds no search with saved weights" in capsys.readouterr().err
    assert not (tmp_path / "rank").exists()


def test_a_search_of_another_space_is_refused(tmp_path, capsys):
    space = get_space("ibn")
    settings = {"search_space": space.options() | {"hash": "0" * 16}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "search_state.json").write_text("{}")
    assert command.run(["x", f"--search_dir={tmp_path}", f"--model_dir={tmp_path / 'rank'}"]) == 2
    assert space.hash in capsys.readouterr().err
