"""The gate: imports in a fresh process, repairs only where needed, a clear refusal of Keras 3."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobiledets_tf import compat

_IMPORTS = """
from mobiledets_tf import compat
first = compat.enable_object_detection()
from object_detection.builders import model_builder
from object_detection import model_lib_v2, inputs, eval_util
from object_detection.metrics import coco_evaluation
from object_detection.protos import pipeline_pb2
assert compat.enable_object_detection() == first
assert compat.keras.Model is compat.tf.keras.Model
config = pipeline_pb2.TrainEvalPipelineConfig()
config.model.ssd.num_classes = 3
assert pipeline_pb2.TrainEvalPipelineConfig.FromString(config.SerializeToString()) == config
compat.enable_slim_oracle()
from object_detection.models import ssd_mobiledet_feature_extractor
print(",".join(repair.name for repair in first))
"""


def run(code: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_object_detection_imports_in_a_fresh_process():
    ran = run(_IMPORTS)
    assert ran.returncode == 0, ran.stderr
    names = ran.stdout.strip().split(",")
    assert "protobuf" in names and "tf.estimator" in names
    # Both packages are installed and import here: nothing to stub.
    assert "lvis" not in names and "tensorflow_io" not in names
    assert "Traceback" not in ran.stderr and "deprecated" not in ran.stderr


def test_keras_3_is_refused_with_the_remedy():
    ran = run("import tensorflow as tf; tf.keras.Model; import mobiledets_tf.compat")
    assert ran.returncode == 1
    assert ran.stderr.strip().splitlines()[-1].startswith("ImportError: TensorFlow was imported with Keras 3")
    assert "TF_USE_LEGACY_KERAS=1" in ran.stderr


def test_a_repair_is_applied_only_where_needed():
    done = []
    for name, needed in (("test-needed", True), ("test-not-needed", False)):
        for _ in range(2):
            repair = compat.Repair(name, "test")
            compat._repair_once(repair, lambda needed=needed: needed, lambda: done.append(1))
    names = [repair.name for repair in compat.applied_repairs()]
    assert names.count("test-needed") == 1 and "test-not-needed" not in names and done == [1]
    compat._applied[:] = [repair for repair in compat._applied if repair.name != "test-needed"]


def test_a_stub_imports_and_explains_its_use():
    stub = compat._Absent("some.package", "install it")
    with pytest.raises(AttributeError, match="some.package.thing is not available: install it"):
        _ = stub.thing


def test_fonts_measure_text():
    compat.enable_object_detection()
    from PIL import ImageFont

    width, height = ImageFont.load_default().getsize("zebra 99%")
    assert width > 20 and height > 5


def test_replaced_puts_the_name_back():
    before = compat.dataclass
    with pytest.raises(ZeroDivisionError), compat.replaced(compat, "dataclass", 1):
        assert compat.dataclass == 1
        _ = 1 / 0
    assert compat.dataclass is before


def test_sums_have_one_order():
    """1 + 2^-24 is 1 in float32, so the order of the sum shows: AddN would begin with the free buffer, c."""
    values = (1.0, 2.0**-24, 2.0**-24)

    @compat.tf.function
    def total(*terms):
        a, b, c = (compat.tf.abs(term) for term in terms)
        return compat.tf.add_n([a, b, c]), a, b

    assert float(total(*map(compat.tf.constant, values))[0]) == 1.0
    assert float(total(*map(compat.tf.constant, reversed(values)))[0]) == 1.0 + 2.0**-23


def test_gradients_of_several_readers_are_summed_in_one_order():
    tf = compat.tf

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.abs(x)
            parts = [y * factor for factor in (2.0**-24, 2.0**-24, 1.0)]
        return tape.gradient(parts, x)

    concrete = gradient.get_concrete_function(tf.constant(1.0))
    kinds = {operation.type for operation in concrete.graph.get_operations()}
    assert "AddV2" in kinds and "AddN" not in kinds
