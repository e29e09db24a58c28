"""The drawing shows every layer by type and width, also without colours."""

import itertools

import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from mobiledets_tf import architecture
from mobiledets_tf.architecture import drawing, specs
from mobiledets_tf.cli import describe


@pytest.mark.parametrize("name", architecture.PUBLISHED)
def test_a_bar_a_layer_of_its_width_and_type(name):
    network = architecture.load(name)
    axis = drawing.figure([network], 320, 90).axes[0]
    assert [bar.get_width() for bar in axis.patches] == [layer.filters for layer in network.layers]
    for bar, layer in zip(axis.patches, network.layers, strict=True):
        _, color, hatch = drawing.STYLES[layer.op]
        assert bar.get_facecolor()[:3] == to_rgb(color) and (bar.get_hatch() or "") == hatch
    assert f"{architecture.describe(network)['params'] / 1e6:.2f} M" in axis.get_title()


def test_every_type_has_a_style_that_grey_keeps_apart():
    assert set(drawing.STYLES) == set(specs.LAYER_SPECS)
    for (_, one, hatch), (_, other, other_hatch) in itertools.combinations(drawing.STYLES.values(), 2):
        grey = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in map(to_rgb, (one, other))]
        assert hatch != other_hatch or abs(grey[0] - grey[1]) > 0.2


def test_words_of_layers():
    layers = architecture.describe(architecture.load("edgetpu"))["layers"]
    assert drawing.layer_text(layers[0]) == "3x3 /2 → 32"
    assert drawing.layer_text(layers[1]) == "3x3 0.25-0.75 → 16"
    assert drawing.layer_text(layers[3]) == "3x3 e4 → 16 +"
    assert drawing.layer_text(layers[22]) == "5x5 e8 → 384 C5 to the head"


def test_the_command_draws(tmp_path, capsys):
    path = tmp_path / "drawn né.png"
    assert describe.run(["describe", "--architecture=gpu", f"--picture={path}"]) == 0
    with Image.open(path) as picture:
        assert picture.format == "PNG" and min(picture.size) > 500
    assert describe.run(["describe", "--architecture=gpu", f"--picture={tmp_path / 'a.jpg'}"]) == 2
    assert "ends in .png" in capsys.readouterr().err
    assert not (tmp_path / "a.jpg").exists()
