"""Models that come with the package: readable, honest about what they are and how wrong."""

import json

import numpy as np
import pytest

from mobiledets_tf import latency
from mobiledets_tf.latency.fit import published_in
from mobiledets_tf.search_space import SPACES, get_space, sample

KINDS = {"hexagon": "simulated", "ethos_u": "compiled", "edgetpu": "modelled"}
CHIPS = (
    ("hexagon", "v73"),
    ("ethos_u", "u55-256"),
    ("ethos_u", "u65-512"),
    ("ethos_u", "u85-1024"),
    ("edgetpu", "pixel4"),
)
PATHS = latency.shipped_paths()


def test_every_device_and_space_that_has_one():
    models = [latency.load(path) for path in PATHS]
    found = {(model.device, model.variant, model.space.name) for model in models}
    assert found == {(*chip, space) for chip in CHIPS for space in SPACES} and len(found) == len(PATHS)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_shipped_model(path):
    model, data = latency.load(path), json.loads(path.read_text())
    assert path.stem.startswith(model.device) and path.stem.endswith(model.space.name)
    assert model.kind == KINDS[model.device]
    model.require_space(get_space(model.space.name))
    assert data["versions"] and data["command"].startswith("mobiledets-latency --mode=fit")
    assert data["measured_by"][0].startswith(f"mobiledets-latency --mode=measure --device={model.device}")
    assert "/" not in data["command"]
    for held_out in (data["held_out"], data["held_out"]["whole_space"]):
        low, high = held_out["band"]
        assert 0 < low < high and held_out["n"] >= 3
        assert held_out["mean_abs_pct_error"] <= held_out["worst_abs_pct_error"]
    whole = data["held_out"]["whole_space"]
    assert whole["r2"] > 0.9 and whole["spearman"] > 0.95
    networks = np.stack([sample(model.space, np.random.default_rng(i)) for i in range(50)])
    assert model.predict(networks).min() > 0.5 * whole["band"][0]
    assert all(model.predict_one(network) > 0 for network in published_in(model.space).values())
