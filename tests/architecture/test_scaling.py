"""The depth multiplier."""

import math

import pytest

from mobiledets_tf import architecture
from mobiledets_tf.architecture import ops
from mobiledets_tf.errors import InputError


@pytest.mark.parametrize(
    "filters, multiplier, expected",
    [
        (16, 1.0, 16),
        (16, 0.75, 16),
        (16, 0.74, 8),
        (24, 0.5, 16),
        (40, 0.5, 24),
        (72, 0.35, 24),
        (8, 0.1, 8),
        (1, 0.01, 8),
        (96, 1.25, 120),
        (12, 1.0, 16),
        (20, 1.0, 24),
        (11, 1.0, 8),
        (144, 0.25, 40),
    ],
)
def test_rounds_half_up_to_eight(filters, multiplier, expected):
    assert architecture.scale_filters(filters, multiplier) == expected


def test_scaled_widths_are_the_nearest_multiple_of_eight():
    for filters in range(1, 400):
        for sixteenths in range(1, 33):
            width = architecture.scale_filters(filters, sixteenths / 16)
            # Half up in whole numbers: floor(filters * sixteenths / 128 + 1/2).
            assert width == max(8, (filters * sixteenths + 64) // 128 * 8), (filters, sixteenths)


def test_scaled_edgetpu_widths():
    half = architecture.load("edgetpu").scaled(0.5)
    assert half.stem.filters == 16
    assert [block[-1].filters for block in half.blocks] == [8, 8, 24, 40, 48, 64, 192]
    assert half.extra_filters == (256, 128, 128, 64)


def test_inner_widths_follow_from_scaled_ones():
    half = architecture.load("edgetpu").scaled(0.5)
    by_role = {(p.layer_name, p.op.name): p.op for p in ops.backbone_ops(half, (320, 320))}
    # 40 * 0.5 = 20 rounds up to 24; the expansion multiplies the rounded width.
    assert by_role["block3_layer2", "expand"].out_channels == 4 * 24
    # Tucker: 0.25 of 16 in is 4 -> 8; 0.75 of 8 out is 6 -> 8.
    assert by_role["block1_layer1", "compress"].out_channels == 8
    assert by_role["block1_layer1", "conv"].out_channels == 8


def test_squeeze_excite_follows_the_scaled_width():
    half = architecture.load("cpu").scaled(0.5)
    gates = [p for p in ops.backbone_ops(half, (320, 320)) if isinstance(p.op, ops.SqueezeExciteOp)]
    hidden = {p.layer_name: p.op.hidden for p in gates}
    # Block 4 ends at 72 -> 40 wide; expanded 4 * 40 = 160; a quarter of it is 40.
    assert hidden["block4_layer4"] == 40


@pytest.mark.parametrize("name", architecture.PUBLISHED)
@pytest.mark.parametrize("multiplier", [0.1, 0.35, 0.5, 0.75, 1.25, 2.0])
def test_every_scaled_network_is_valid(name, multiplier):
    network = architecture.load(name)
    scaled = network.scaled(multiplier)
    assert [layer.op for layer in scaled.layers] == [layer.op for layer in network.layers]
    assert [layer.residual for layer in scaled.layers] == [layer.residual for layer in network.layers]
    assert all(layer.filters % 8 == 0 for layer in scaled.layers)
    assert architecture.from_dict(architecture.to_dict(scaled)) == scaled


def test_one_changes_nothing():
    network = architecture.load("gpu")
    assert network.scaled(1.0) is network


def test_a_scaled_network_has_left_its_search_space():
    origin = architecture.Origin("ibn", "0123", (1, 2))
    network = architecture.from_dict(
        architecture.to_dict(architecture.load("cpu"))
        | {"origin": {"search_space": "ibn", "space_hash": "0123", "decisions": [1, 2]}}
    )
    assert network.origin == origin
    assert network.scaled(1.0).origin == origin
    assert network.scaled(0.5).origin is None


@pytest.mark.parametrize("multiplier", [0, -1, 17, math.nan, math.inf])
def test_multipliers_out_of_range(multiplier):
    with pytest.raises(InputError, match="depth multiplier is .* allowed: above 0 and at most 16"):
        architecture.load("cpu").scaled(multiplier)


def test_widths_beyond_the_limit():
    with pytest.raises(InputError, match="filters is"):
        architecture.load("edgetpu").scaled(4).scaled(16)
