"""Shipped configs are built and run; generated ones follow the published recipe."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from mobiledets_tf.compat import tf
from mobiledets_tf.detection import meta_architecture, network_settings, pipeline_config
from mobiledets_tf.detection.pipeline_config import Overrides
from mobiledets_tf.errors import InputError

CONFIGS = sorted((Path(__file__).parents[2] / "object_detection_configs").glob("*.config"))
PUBLISHED = [path for path in CONFIGS if "coco" in path.name]


def test_all_are_there():
    assert [path.name for path in CONFIGS] == [
        *(f"ssdlite_mobiledet_{n}_320x320_coco_sync_4x4.config" for n in ("cpu", "dsp", "edgetpu", "gpu")),
        "ssdlite_mobiledet_sample_160x160.config",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name.split("_320")[0])
def test_shipped_config_builds_and_runs(path):
    config = pipeline_config.load(path)
    model = meta_architecture.build_detection_model(config.model, is_training=False)
    settings = model.settings
    image = tf.zeros((1, *settings.image_size, 3))
    outputs = model.predict(model.preprocess(image)[0], None)
    anchors = {320: 2034, 160: 540}[settings.image_size[0]]
    assert outputs["box_encodings"].shape == (1, anchors, 4)
    assert outputs["class_predictions_with_background"].shape == (1, anchors, settings.num_classes + 1)
    assert outputs["anchors"].shape == (anchors, 4)
    assert np.isfinite(outputs["class_predictions_with_background"].numpy()).all()
    # Each config opens with its command and what comes of it.
    text = path.read_text(encoding="utf-8")
    assert f"--pipeline_config=object_detection_configs/{path.name}" in text
    assert "result" in text.split("model {")[0]


@pytest.mark.parametrize(
    ("name", "params"),
    [("cpu", 4_205_423), ("edgetpu", 4_196_095), ("dsp", 7_159_343), ("gpu", 13_109_151)],
)
def test_published_configs_hold_the_published_networks(name, params):
    path = next(path for path in PUBLISHED if f"_{name}_" in path.name)
    model = meta_architecture.build_detection_model(pipeline_config.load(path).model, is_training=True)
    assert model.network.count_params() == params


def test_published_configs_differ_in_the_network_only():
    configs = [pipeline_config.load(path) for path in PUBLISHED]
    for config in configs:
        config.model.ssd.feature_extractor.type = ""
    assert all(config == configs[0] for config in configs)


def test_published_recipe():
    """Figures of the TF1 sample configs."""
    train = pipeline_config.load(PUBLISHED[0]).train_config
    rate = train.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate
    assert (train.batch_size, train.num_steps) == (512, 400000)
    assert (rate.total_steps, rate.warmup_steps) == (400000, 2000)
    assert (rate.learning_rate_base, rate.warmup_learning_rate) == pytest.approx((0.8, 0.13333))
    steps = [option.WhichOneof("preprocessing_step") for option in train.data_augmentation_options]
    assert steps == ["random_horizontal_flip", "ssd_random_crop"]


def test_generated_config_has_the_model_of_the_shipped_one():
    shipped = pipeline_config.load(CONFIGS[-1])
    generated = pipeline_config.generate(
        Overrides("edgetpu", 10, (160, 160), depth_multiplier=0.35, steps=1200)
    )
    shipped.model.ssd.box_predictor.convolutional_box_predictor.ClearField("dropout_keep_probability")
    assert generated.model == shipped.model
    assert generated.train_config.num_steps == shipped.train_config.num_steps
    rates = [
        config.train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate
        for config in (generated, shipped)
    ]
    assert rates[0].warmup_steps == rates[1].warmup_steps == 60
    assert rates[0].warmup_learning_rate == pytest.approx(rates[1].warmup_learning_rate, abs=1e-5)


def test_text_round_trip(tmp_path):
    config = pipeline_config.generate(Overrides("edgetpu", 3, label_map='a "quoted" \\ path'))
    pipeline_config.save(config, tmp_path / "pipeline.config")
    assert pipeline_config.load(tmp_path / "pipeline.config") == config


def test_overrides_stretch_the_schedule_and_leave_the_rest():
    config = pipeline_config.load(PUBLISHED[0])
    short = pipeline_config.override(config, Overrides(steps=2000, learning_rate=0.4, random_crop=False))
    rate = short.train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate
    assert (short.train_config.num_steps, rate.total_steps, rate.warmup_steps) == (2000, 2000, 10)
    assert (rate.learning_rate_base, rate.warmup_learning_rate) == pytest.approx((0.4, 0.066665))
    assert len(short.train_config.data_augmentation_options) == 1
    assert short.model == config.model
    # Setting a step twice leaves one of it.
    flip = Overrides(random_flip=True)
    again = pipeline_config.override(pipeline_config.override(short, flip), flip)
    assert len(again.train_config.data_augmentation_options) == 1
    assert config == pipeline_config.load(PUBLISHED[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model {\n  ssd {\n    num_clases: 3\n  }\n}", "line 3: .*num_clases"),
        ("model {\n  ssd {", "line 2"),
        ("train_config {\n batch_size: many }", "line 2"),
    ],
)
def test_parse_errors_name_the_line(text, message):
    with pytest.raises(InputError, match=message) as caught:
        pipeline_config.parse(text)
    assert "\n" not in str(caught.value)


def test_unreadable_configs(tmp_path):
    (tmp_path / "binary.config").write_bytes(b"\xff\xfe\x00model")
    for path, message in ((tmp_path / "none.config", "No such file"), (tmp_path / "binary.config", "UTF-8")):
        with pytest.raises(InputError, match=message):
            pipeline_config.load(path)


def test_settings_are_read_exactly():
    ssd = pipeline_config.generate(Overrides("dsp", 7, (192, 320), depth_multiplier=0.35)).model.ssd
    settings = network_settings.read(ssd)
    assert dataclasses.asdict(settings) | {"architecture": None} == {
        "architecture": None,
        "num_classes": 7,
        "image_size": (192, 320),
        "depth_multiplier": 0.35,
        "anchors_per_location": (3, 6, 6, 6, 6, 6),
        "head_norm": {"momentum": 0.97, "epsilon": 0.001},
        "class_bias": -4.6,
        "l2": 4e-5,
        "predictor_l2": 4e-5,
        "backbone_stddev": 0.03,
        "backbone_momentum": 0.97,
    }
    assert settings.architecture.name == "dsp"


def test_backbone_starts_as_the_config_says():
    stddevs = {}
    for override in (False, True):
        ssd = pipeline_config.generate(Overrides("edgetpu", 3, (160, 160), depth_multiplier=0.25)).model.ssd
        ssd.feature_extractor.override_base_feature_extractor_hyperparams = override
        network = meta_architecture.build_network(network_settings.read(ssd))
        stddevs[override] = {w.name: float(w.numpy().std()) for w in network.weights if "kernel" in w.name}
        momentum = {layer.momentum for layer in network.layers if hasattr(layer, "momentum")}
        assert momentum == ({0.97} if override else {0.97, 0.99})
    project = "block6_layer1_project/kernel:0"  # 8 * 24 -> 32: He gives sqrt(2 / 192)
    assert stddevs[False][project] == pytest.approx((2 / 192) ** 0.5, rel=0.05)
    # A normal of 0.03 cut at two deviations.
    assert stddevs[True][project] == pytest.approx(0.03 * 0.88, rel=0.05)
    # Kernels of one shape are drawn apart.
    kernels = [w.numpy() for w in network.weights if w.name.startswith("block5") and "_project/" in w.name]
    assert kernels[1].shape == kernels[2].shape and not np.array_equal(kernels[1], kernels[2])
    predictor = "predictor0_class_conv/kernel:0"
    assert stddevs[True][predictor] == pytest.approx(stddevs[False][predictor], rel=0.2)


REFUSED = {
    'feature_extractor { type: "ssd_mobiledet_edgtpu" }': "did you mean 'ssd_mobiledet_edgetpu'",
    'feature_extractor { type: "ssd_mobilenet_v2_keras" }': "ssd_mobiledet_cpu",
    "feature_extractor { use_depthwise: false }": "use_depthwise is False",
    "feature_extractor { num_layers: 5 }": "num_layers is 5",
    "feature_extractor { conv_hyperparams { batch_norm { epsilon: 0.01 } } }": "epsilon is 0.01",
    "feature_extractor { conv_hyperparams { batch_norm { decay: 0.9 } } }": "require 0.9",
    "feature_extractor { conv_hyperparams { activation: RELU } }": "RELU_6",
    "feature_extractor { conv_hyperparams { regularizer { l1_regularizer {} } } }": "l1_regularizer",
    "feature_extractor { conv_hyperparams { initializer { variance_scaling_initializer {} } } }": "initial",
    "box_predictor { convolutional_box_predictor { use_dropout: true } }": "use_dropout is True",
    "anchor_generator { ssd_anchor_generator { min_scale: 0.1 } }": "min_scale is 0.1",
    "box_coder { faster_rcnn_box_coder { y_scale: 5 } }": "y_scale is 5",
    "image_resizer { keep_aspect_ratio_resizer {} }": "fixed_shape_resizer",
    "image_resizer { fixed_shape_resizer { width: 32 } }": "image size 32",
}


@pytest.mark.parametrize("change", REFUSED)
def test_what_the_networks_do_not_do_is_refused(change):
    ssd = pipeline_config.generate(Overrides("edgetpu", 3)).model.ssd
    ssd.MergeFrom(text_format.Parse(change, type(ssd)()))
    with pytest.raises(InputError, match=re.escape(REFUSED[change])):
        network_settings.read(ssd)
