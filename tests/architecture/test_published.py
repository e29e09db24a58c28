"""The four published networks against golden figures and the released layer lists."""

import json

import pytest

from mobiledets_tf import architecture
from mobiledets_tf.architecture import ops, summary

# Parameters with BN statistics, trainable ones, multiply-adds: 90 classes, 320x320.
GOLDEN = {
    "cpu": (4_205_423, 4_165_055, 444_227_776),
    "edgetpu": (4_196_095, 4_146_543, 1_533_181_504),
    "dsp": (7_159_343, 7_102_079, 2_816_403_904),
    "gpu": (13_109_151, 13_069_247, 5_073_184_704),
}
# Channels of C4 and C5.
ENDPOINT_CHANNELS = {"cpu": (72, 144), "edgetpu": (96, 384), "dsp": (144, 240), "gpu": (128, 384)}
# Layers by op, stem included.
OPS = {
    "cpu": {"conv": 1, "dwsep_no_expansion": 1, "ibn": 18},
    "edgetpu": {"conv": 1, "ibn": 11, "fused": 10, "tucker": 1},
    "dsp": {"conv": 1, "dwsep_no_expansion": 1, "ibn": 11, "fused": 8, "tucker": 2},
    "gpu": {"conv": 1, "ibn": 1, "fused": 17, "tucker": 4},
}
RELEASED = {
    "cpu": "MobileDetCPU",
    "edgetpu": "MobileDetEdgeTPU",
    "dsp": "MobileDetDSP",
    "gpu": "MobileDetGPU",
}


@pytest.fixture(params=GOLDEN)
def name(request):
    return request.param


@pytest.fixture
def released(shared):
    path = shared / "reference" / "published_architectures.json"
    if not path.exists():
        pytest.skip("the released layer lists are absent")
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_published_networks_are_these_four():
    assert set(architecture.PUBLISHED) == set(GOLDEN)


def test_totals_are_the_published_ones_to_the_digit(name):
    description = architecture.describe(architecture.load(name))
    assert (description["params"], description["trainable_params"], description["madds"]) == GOLDEN[name]


def test_feature_maps_and_anchors(name):
    network = architecture.load(name)
    maps = architecture.feature_maps(network, 320)
    c4, c5 = ENDPOINT_CHANNELS[name]
    assert [m.name for m in maps] == ["C4", "C5", "extra1", "extra2", "extra3", "extra4"]
    assert [m.size for m in maps] == [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    assert [m.channels for m in maps] == [c4, c5, 512, 256, 256, 128]
    assert architecture.num_anchors(network, 320) == 1200 + 600 + 150 + 54 + 24 + 6 == 2034


def test_op_counts(name):
    counts: dict[str, int] = {}
    for layer in architecture.load(name).layers:
        counts[layer.op] = counts.get(layer.op, 0) + 1
    assert counts == OPS[name]


def test_dsp_has_the_residual_of_layer_20():
    layer = architecture.load("dsp").layers[20]
    assert (layer.op, layer.filters, layer.expansion, layer.residual) == ("fused", 160, 4, True)


def test_only_cpu_has_hard_swish_and_squeeze_excite(name):
    network = architecture.load(name)
    expected = ("hard_swish", 0.25) if name == "cpu" else ("relu6", None)
    assert (network.activation, network.se_ratio) == expected


def test_every_layer_is_the_released_one(name, released):
    """Fields, sizes, parameters (BN counted as 2 a channel) and multiply-adds of each layer."""
    expected = released["architectures"][RELEASED[name]]
    ours = _layers_in_released_form(architecture.load(name))
    assert len(ours) == len(expected)
    for index, (layer, theirs) in enumerate(zip(ours, expected, strict=True)):
        common = {key: theirs[key] for key in layer if key in theirs}
        assert {key: layer[key] for key in common} == common, f"layer {index}"
        assert {"op", "kernel", "stride", "filters", "residual", "params", "madds"} <= set(common)


def test_parts_add_up_to_the_released_parts(name, released):
    theirs = released["summary"][RELEASED[name]]
    groups: dict[str, list[ops.PlacedOp]] = {"backbone": [], "extra": [], "pred": []}
    for placed in summary.detector_ops(architecture.load(name)):
        group = next((g for g in ("extra", "pred") if placed.layer_name.startswith(g)), "backbone")
        groups[group].append(placed)
    for group, placed in groups.items():
        figures = summary.trainable_params(placed), summary.madds(placed)
        assert figures == (theirs[f"{group}_params"], theirs[f"{group}_madds"]), group


def _layers_in_released_form(network: architecture.Architecture) -> list[dict]:
    by_layer: dict[str, list[ops.PlacedOp]] = {}
    for placed in ops.backbone_ops(network, (320, 320)):
        by_layer.setdefault(placed.layer_name, []).append(placed)
    endpoint_of = {layer: endpoint for endpoint, layer in network.endpoints().items()}
    rows = []
    for name, spec in network.named_layers():
        placed = by_layer[name]
        roles = {p.op.name: p.op for p in placed}
        row = {
            "op": spec.op,
            "kernel": spec.kernel_size,
            "stride": spec.strides,
            "filters": spec.filters,
            "residual": spec.residual,
            "in_filters": placed[0].op.in_channels,
            "in_hw": placed[0].in_size[0],
            "out_hw": placed[-1].out_size[0],
            "params": summary.trainable_params(placed),
            "madds": summary.madds(placed),
            "endpoint": endpoint_of.get(name),
        }
        for field in ("expansion", "in_ratio", "out_ratio"):
            if hasattr(spec, field):
                row[field] = getattr(spec, field)
        if "expand" in roles:
            row["mid"] = roles["expand"].out_channels
        if "compress" in roles:
            row |= {"in_rank": roles["compress"].out_channels, "out_rank": roles["conv"].out_channels}
        if "se" in roles:
            row |= {"se_hidden": roles["se"].hidden}
        rows.append(row)
    return rows
