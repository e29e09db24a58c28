"""Parameters and multiply-adds that a person can compute by hand."""

import pytest

from mobiledets_tf import architecture
from mobiledets_tf.architecture import ops, specs, summary
from mobiledets_tf.errors import InputError


def _count(layer, in_channels, size, activation="relu6", se_ratio=None):
    placed, out = ops.place("layer", ops.lower(layer, in_channels, activation, se_ratio), size)
    return summary.params(placed), summary.trainable_params(placed), summary.madds(placed), out


def test_convolution():
    # 3*3*3*16 weights, 16 scales, centres, means and variances; 160*160 outputs.
    expected = (432 + 64, 432 + 32, 160 * 160 * 432, (160, 160))
    assert _count(specs.ConvSpec(16, 3, 2), 3, (320, 320)) == expected


def test_inverted_bottleneck():
    # 8 -> 32 (1x1) -> 32 (depthwise 5x5, stride 2) -> 16 (1x1).
    params, trainable, madds, out = _count(specs.InvertedBottleneckSpec(16, 5, 2, expansion=4), 8, (10, 6))
    assert out == (5, 3)
    assert trainable == 8 * 32 + 25 * 32 + 32 * 16 + 2 * (32 + 32 + 16)
    assert params == trainable + 2 * (32 + 32 + 16)
    assert madds == 60 * 8 * 32 + 15 * 25 * 32 + 15 * 32 * 16


def test_no_expansion():
    _, trainable, madds, _ = _count(specs.InvertedBottleneckNoExpansionSpec(24), 32, (4, 4))
    assert trainable == 9 * 32 + 32 * 24 + 2 * (32 + 24)
    assert madds == 16 * (9 * 32 + 32 * 24)


def test_fused_inverted_bottleneck():
    _, trainable, madds, _ = _count(specs.FusedInvertedBottleneckSpec(40, 5, 2, expansion=8), 16, (8, 8))
    assert trainable == 25 * 16 * 128 + 128 * 40 + 2 * (128 + 40)
    assert madds == 16 * (25 * 16 * 128 + 128 * 40)


def test_tucker_ranks_come_from_input_and_output_widths():
    layer = specs.TuckerSpec(16, 3, 1, in_ratio=0.25, out_ratio=0.75)
    # 0.25 of 32 in; 0.75 of 16 out is 12, which rounds half up to 16.
    assert ops.tucker_ranks(layer, 32) == (8, 16)
    _, trainable, _, _ = _count(layer, 32, (4, 4))
    assert trainable == 32 * 8 + 9 * 8 * 16 + 16 * 16 + 2 * (8 + 16 + 16)


def test_squeeze_excite_acts_on_one_pixel():
    plain = _count(specs.InvertedBottleneckSpec(16, expansion=4), 8, (10, 10))
    gated = _count(specs.InvertedBottleneckSpec(16, expansion=4), 8, (10, 10), se_ratio=0.25)
    assert gated[0] - plain[0] == 32 * 8 + 8 + 8 * 32 + 32
    assert gated[2] - plain[2] == 2 * 32 * 8


def test_squeeze_excite_of_no_expansion_is_sized_by_the_input():
    lowered = ops.lower(specs.InvertedBottleneckNoExpansionSpec(8), 16, "hard_swish", 0.25)
    assert [op.hidden for op in lowered if isinstance(op, ops.SqueezeExciteOp)] == [8]  # 4 rounds up to 8


@pytest.mark.parametrize(
    "size, maps",
    [
        (65, [5, 3, 2, 1, 1, 1]),
        (96, [6, 3, 2, 1, 1, 1]),
        (300, [19, 10, 5, 3, 2, 1]),
        (513, [33, 17, 9, 5, 3, 2]),
    ],
)
def test_map_sizes_round_up(size, maps):
    network = architecture.load("edgetpu")
    assert [m.size for m in architecture.feature_maps(network, size)] == [(side, side) for side in maps]
    anchors = sum(n * side * side for n, side in zip((3, 6, 6, 6, 6, 6), maps, strict=True))
    assert architecture.num_anchors(network, size) == anchors


def test_size_is_height_then_width():
    maps = architecture.feature_maps(architecture.load("edgetpu"), (96, 320))
    assert [m.size for m in maps] == [(6, 20), (3, 10), (2, 5), (1, 3), (1, 2), (1, 1)]


@pytest.mark.parametrize(
    "size",
    [
        64,
        0,
        -320,
        4097,
        320.0,
        True,
        "320",
        None,
        float("nan"),
        (320,),
        (320, 64),
        (320, 320, 3),
        (320, 96.5),
    ],
)
def test_sizes_that_do_not_fit_six_maps(size):
    with pytest.raises(InputError, match="image size"):
        architecture.describe(architecture.load("cpu"), 90, size)


@pytest.mark.parametrize(
    "num_classes", [0, -1, 10_001, 1.5, True, None, pytest.param(10**5000, id="endless")]
)
def test_class_counts_out_of_range(num_classes):
    with pytest.raises(InputError, match="number of classes is .* allowed: 1 to 10000"):
        architecture.describe(architecture.load("cpu"), num_classes)


def test_class_count_touches_the_class_predictors_alone():
    few, many = (architecture.describe(architecture.load("edgetpu"), n) for n in (1, 90))
    assert few["layers"] == many["layers"]
    changed = [a["name"] for a, b in zip(few["head"], many["head"], strict=True) if a != b]
    assert changed == [f"predictor{i}_class" for i in range(6)]


@pytest.mark.parametrize(
    "anchors",
    [
        (),
        (3, 6),
        (3, 6, 6, 6, 6, 0),
        (3, 6, 6, 6, 6, 6.0),
        (1,) * 7,
        (101,) * 6,
    ],
)
def test_anchor_counts_out_of_range(anchors):
    with pytest.raises(InputError, match="anchors per location .* allowed: 6 integers from 1 to 100"):
        architecture.num_anchors(architecture.load("cpu"), 320, anchors)
