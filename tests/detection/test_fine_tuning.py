"""A training that starts from weights, by class count and origin; presets; quantisation-aware training."""

import json

import numpy as np
import pytest

from mobiledets_tf import architecture
from mobiledets_tf.cli import train as command
from mobiledets_tf.compat import tf
from mobiledets_tf.detection import meta_architecture, network_settings, pipeline_config, presets
from mobiledets_tf.detection.pipeline_config import Overrides
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import checkpoints, imported_weights, own_checkpoint

SIZE, DEPTH = 96, 0.25


def settings(num_classes: int, name: str = "edgetpu", depth: float = DEPTH):
    config = pipeline_config.generate(Overrides(name, num_classes, (SIZE, SIZE), depth))
    return network_settings.read(config.model.ssd)


def target(num_classes, name="edgetpu", depth=DEPTH):
    return imported_weights.Target(architecture.load(name), num_classes, (SIZE, SIZE), depth)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An imported folder for five classes with weights that no initialiser draws."""
    folder = tmp_path_factory.mktemp("trained")
    account = imported_weights.Account("test", "checkpoint", target(5))
    network = meta_architecture.build_network(settings(5))
    for number, weight in enumerate(network.weights):
        value = np.full(weight.shape, 0.001 * number, np.float32)
        account.take(weight.name, value, weight.name, tuple(weight.shape))
    imported_weights.write(account, folder)
    return folder


def test_the_same_classes_take_every_weight(trained):
    account = own_checkpoint.read(trained, target(5))
    assert len(account.weights) == 429 and not account.fresh and not account.skipped
    assert account.summary() == ["429 tensors imported into 429 weights"]


def test_another_class_count_leaves_the_last_convolutions_fresh_and_says_so(trained):
    account = own_checkpoint.read(trained, target(2))
    assert set(account.fresh) == {
        f"predictor{level}_class_conv/{part}:0" for level in range(6) for part in ("kernel", "bias")
    }
    assert "it has 5 classes, but the network has 2" in account.summary()[-1]
    network = meta_architecture.build_network(settings(2))
    named = {weight.name: weight for weight in network.weights}
    imported_weights.assign(account, named)
    given = checkpoints.values(trained)
    for name in account.weights:
        np.testing.assert_array_equal(named[name].numpy(), given[name])
    np.testing.assert_allclose(named["predictor3_class_conv/bias:0"], -4.6)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (target(5, "dsp"), "belongs to another network"),
        (target(5, depth=0.5), r"stem_conv/kernel:0 has shape \(3, 3, 3, 8\), but .* has \(3, 3, 3, 16\)"),
    ],
)
def test_another_network_is_refused_with_both_shapes(trained, other, words):
    with pytest.raises(InputError, match=words):
        own_checkpoint.read(trained, other)


def test_presets_follow_the_size_of_the_data():
    small, large = (presets.derive("small", images) for images in (296, 100_000))
    assert (small.batch_size, small.steps, small.learning_rate) == (16, 3700, 0.2)
    assert large.steps == 20_000
    tuned = presets.derive("finetune", 296)
    assert tuned.steps == 925 and tuned.learning_rate == pytest.approx(0.04)
    few = presets.derive("small", 9)
    assert few.batch_size == 2 and few.learning_rate == pytest.approx(0.025)
    with pytest.raises(InputError):
        presets.derive("small", 0)


def test_a_config_says_whether_it_is_quantisation_aware():
    config = pipeline_config.generate(Overrides("edgetpu", 2))
    assert not pipeline_config.is_quantization_aware(config)
    quantised = pipeline_config.override(config, Overrides(quantization_aware=True))
    assert pipeline_config.is_quantization_aware(quantised)
    quantised.graph_rewriter.quantization.delay = 30_000
    with pytest.raises(InputError, match="delay 30000.*allowed: 0, 8, 8"):
        pipeline_config.is_quantization_aware(quantised)


@pytest.mark.slow
def test_a_quantised_training_starts_from_a_float_folder_and_keeps_its_names(trained, tiny, tmp_path, capsys):
    folder = tmp_path / "qat"
    flags = ("--steps=2", "--batch_size=2", "--learning_rate=0.001", "--mode=train")
    code = command.run(
        [
            "mobiledets-train",
            f"--init_from={trained}",
            "--quantization_aware",
            f"--train_data={tiny}",
            f"--model_dir={folder}",
            *flags,
        ]
    )
    output = capsys.readouterr().out
    assert code == 0 and "it has 5 classes, but the network has 2" in output
    given, first, last = (checkpoints.values(path) for path in (trained, *checkpoints.kept(folder)[:3:2]))
    assert first.keys() == last.keys() == given.keys()
    np.testing.assert_array_equal(first["stem_conv/kernel:0"], given["stem_conv/kernel:0"])
    assert not np.array_equal(last["stem_conv/kernel:0"], given["stem_conv/kernel:0"])
    # The float network takes the weights, a quantised one the ranges as well.
    checkpoints.restore(meta_architecture.build_network(settings(2)), folder)
    config = pipeline_config.load(folder / "pipeline.config")
    model = meta_architecture.build_detection_model(config.model, False, quantization_aware=True)
    checkpoints.restore(model.network, folder, model.named_weights)
    checkpoints.restore_ranges(model.ranges, folder)
    assert all(np.isfinite(value.numpy()) for value in model.ranges.values())
    observed = model.ranges["quant_class_logits/output_min:0"].numpy()
    assert observed < 0
    with pytest.raises(InputError, match="contains no activation ranges"):
        checkpoints.restore_ranges(model.ranges, trained)
    boxes, logits = model.network(tf.zeros((1, SIZE, SIZE, 3)), training=False)
    assert np.isfinite(boxes.numpy()).all() and np.isfinite(logits.numpy()).all()


@pytest.mark.slow
def test_a_training_takes_weights_of_another_architecture(trained, tiny, tmp_path, capsys):
    """Remapped, statistics recovered, then trained with simulated quantisation."""
    folder = tmp_path / "dsp"
    flags = ("--steps=1", "--batch_size=2", "--learning_rate=0.001", "--mode=train", "--quantization_aware")
    network = ("--architecture=dsp", f"--image_size={SIZE}", f"--depth_multiplier={DEPTH}")
    code = command.run(
        [
            "mobiledets-train",
            f"--init_from={trained}",
            f"--train_data={tiny}",
            f"--model_dir={folder}",
            *network,
            *flags,
        ]
    )
    output = capsys.readouterr().out
    assert code == 0 and "remapped to dsp" in output and "recovered from 16 images" in output
    account = json.loads((folder / "import.json").read_text())
    first = checkpoints.values(checkpoints.kept(folder)[0])
    assert first.keys() == account["remapped"].keys() | account["fresh"].keys()
    assert account["remapped"]["block1_layer1_depthwise/depthwise_kernel:0"]["how"] == "decomposed"
    assert account["architecture"] == "dsp" and not account["folded_norm"]
    given = checkpoints.values(trained)
    np.testing.assert_array_equal(first["stem_conv/kernel:0"], given["stem_conv/kernel:0"])
    # Recovered: what the first normalisation reads is not what the old weights say.
    assert not np.array_equal(first["stem_conv_bn/moving_mean:0"], given["stem_conv_bn/moving_mean:0"])
