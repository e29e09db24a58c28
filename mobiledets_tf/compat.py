"""The single entry point to TensorFlow, Keras and the TF Object Detection API.

Every module of this project imports `tf` and `keras` from here. This module selects legacy
Keras (Keras 2, package `tf_keras`), which the Object Detection API and the model
optimisation toolkit require, turns oneDNN's kernels on, and restores what the Object Detection
API of 2022 no longer finds in today's packages. Each repair is applied only if a check shows
that it is needed. Repairs change modules in memory, never installed files.
"""

import ast
import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import platform
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
# Level 2 keeps TensorFlow's error messages and hides its notices about CPU features. On a machine
# without a GPU TensorFlow also logs, as an error, that CUDA found none. Level 3 hides that message too;
# real errors still raise Python exceptions.
_HAS_GPU = any(os.path.exists(device) for device in ("/dev/nvidiactl", "/dev/dxg"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if _HAS_GPU else "3")
# TensorFlow uses oneDNN's kernels by default only on x86 CPUs with instructions for neural networks, such as
# AVX-512 VNNI. They are faster on all others as well, above all the gradients of kernels and normalisations.
# The builds for other kinds of CPUs keep their default.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import tensorflow as tf  # noqa: E402 - the environment has to be set first
import tf_keras as keras  # noqa: E402
from tensorflow.python.ops import gen_image_ops, gen_math_ops, gen_random_ops  # noqa: E402

if tf.keras.Model is not keras.Model:
    raise ImportError(
        "TensorFlow was imported with Keras 3 before mobiledets_tf: import mobiledets_tf.compat first, "
        "or set TF_USE_LEGACY_KERAS=1 in the environment, and restart Python"
    )

# The next two settings make sums of three or more tensors reproducible. TensorFlow's AddN starts with
# whichever input has a buffer that nothing else still reads, so the order of its sum, and with it the
# last bits of losses and gradients, depend on how far other operations have come. Grappler's arithmetic
# optimiser would replace chains of additions by AddN again.
_plain_add_n = gen_math_ops.add_n


def _add_in_order(inputs: list[Any], name: str | None = None) -> Any:
    if inputs[0].dtype == tf.variant:
        return _plain_add_n(inputs, name=name)
    return functools.reduce(lambda total, term: tf.raw_ops.AddV2(x=total, y=term), inputs)


gen_math_ops.add_n = _add_in_order
# With oneDNN on a CPU without AVX-512, the operations that the remapper fuses for inference take many times
# as long as the separate ones: an evaluation processed 5.6 images per second with it and 46 without (oneDNN
# limited to AVX2). With AVX-512 it processed 74 with it and 69 without, while other jobs were running.
tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False, "remapping": False})

__all__ = [
    "Repair",
    "applied_repairs",
    "enable_object_detection",
    "enable_slim_oracle",
    "gen_image_ops",
    "gen_random_ops",
    "keras",
    "quiet",
    "replaced",
    "tf",
]


@dataclass(frozen=True)
class Repair:
    """One in-memory repair.

    Attributes:
      name: what is repaired.
      reason: why the repair is needed.
    """

    name: str
    reason: str


_applied: list[Repair] = []
_checked: set[str] = set()


def applied_repairs() -> tuple[Repair, ...]:
    """Returns the repairs applied in this process so far, in order."""
    return tuple(_applied)


def enable_object_detection() -> tuple[Repair, ...]:
    """Makes `import object_detection...` work. Further calls have no effect.

    Returns:
      The repairs applied in this process, in order; empty if none was needed.

    Raises:
      ImportError: the Object Detection API is not installed.
    """
    if "object_detection" not in _checked and importlib.util.find_spec("object_detection") is None:
        raise ImportError(
            "the TF Object Detection API is missing: pip install tf-models-research-object-detection"
        )
    _checked.add("object_detection")
    for repair, is_needed, apply in _OBJECT_DETECTION_REPAIRS:
        _repair_once(repair, is_needed, apply)
    return applied_repairs()


def enable_slim_oracle() -> tuple[Repair, ...]:
    """Makes the API's TF1/slim feature extractors importable, as oracles for parity tests.

    Returns:
      The repairs applied in this process, in order.
    """
    enable_object_detection()
    _repair_once(
        Repair("legacy_tf_layers", "tf_keras hides the TF1 layer functions that slim graphs use"),
        lambda: not hasattr(keras, "legacy_tf_layers"),
        _alias_legacy_tf_layers,
    )
    return applied_repairs()


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset with fixed instead of automatically tuned parallelism.

    The thread that tunes takes CPU time from training, and deleting an iterator waits for it. In one training
    on two busy cores, the process needed 13 s after its last evaluation with tuning, and 2 s without.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides Python warnings and the deprecation notices that TensorFlow logs, within a `with` block."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def replaced(module: types.ModuleType, name: str, value: object) -> Iterator[None]:
    """Replaces one attribute of a module within a `with` block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _repair_once(repair: Repair, is_needed: Callable[[], bool], apply: Callable[[], None]) -> None:
    if repair.name in _checked:
        return
    if is_needed():
        apply()
        _applied.append(repair)
    _checked.add(repair.name)


# --- protobuf messages -------------------------------------------------------------------

_PROTO_PACKAGE = "object_detection.protos"


def _generated_messages_are_refused() -> bool:
    try:
        importlib.import_module(f"{_PROTO_PACKAGE}.string_int_label_map_pb2")
    except TypeError:  # "Descriptors cannot be created directly"
        return True
    return False


def _install_proto_finder() -> None:
    sys.meta_path.insert(0, _ProtoFinder())


class _ProtoFinder(importlib.abc.MetaPathFinder):
    """Finds `object_detection.protos.*_pb2` modules and assigns `_ProtoLoader` to them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not (fullname.startswith(f"{_PROTO_PACKAGE}.") and fullname.endswith("_pb2")):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _ProtoLoader(Path(spec.origin))
        return spec


class _ProtoLoader(importlib.abc.Loader):
    """Builds message classes from the serialized descriptor inside a generated file.

    The generated files were written by an old protoc. Protobuf 4 and later refuse their
    Python descriptors, but the serialized descriptor that they also contain is still valid.
    """

    def __init__(self, path: Path):
        self._path = path

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        from google.protobuf import descriptor_pb2, descriptor_pool
        from google.protobuf.internal import builder

        serialized = _serialized_descriptor(self._path)
        for dependency in descriptor_pb2.FileDescriptorProto.FromString(serialized).dependency:
            importlib.import_module(dependency.removesuffix(".proto").replace("/", ".") + "_pb2")
        descriptor = descriptor_pool.Default().AddSerializedFile(serialized)
        module.__dict__["DESCRIPTOR"] = descriptor
        builder.BuildMessageAndEnumDescriptors(descriptor, module.__dict__)
        builder.BuildTopDescriptorsAndMessages(descriptor, module.__name__, module.__dict__)


def _serialized_descriptor(path: Path) -> bytes:
    """Returns the `serialized_pb=b'...'` literal of a generated file without running the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb":
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, bytes):
                return node.value.value
    raise ImportError(f"{path} contains no serialized descriptor")


# --- removed TensorFlow attributes ---------------------------------------------------------


class _Absent(types.ModuleType):
    """A placeholder module: importing it works, using any attribute raises a clear error."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"{self.__name__}.{name} is not available: {self.__doc__}")


def _add_absent_module(name: str, reason: str) -> None:
    sys.modules[name] = _Absent(name, reason)


def _estimator_is_missing() -> bool:
    return not hasattr(tf.compat.v1, "estimator")


def _add_absent_estimator() -> None:
    _add_absent_module("tensorflow.compat.v1.estimator", "TensorFlow removed tf.estimator in 2.16")
    # In some TensorFlow versions the public name and the implementation module are distinct objects.
    for module in {tf.compat.v1, importlib.import_module("tensorflow.compat.v1")}:
        module.estimator = sys.modules["tensorflow.compat.v1.estimator"]


_CONTROL_FLOW = ("case", "cond", "while_loop")


def _control_flow_names_are_missing() -> bool:
    from tensorflow.python.ops import control_flow_ops

    return not all(hasattr(control_flow_ops, name) for name in _CONTROL_FLOW)


def _add_control_flow_names() -> None:
    from tensorflow.python.ops import control_flow_ops

    for name in _CONTROL_FLOW:
        if not hasattr(control_flow_ops, name):
            setattr(control_flow_ops, name, getattr(tf.compat.v1, name))


def _alias_legacy_tf_layers() -> None:
    module = importlib.import_module("tf_keras.src.legacy_tf_layers")
    keras.legacy_tf_layers = module
    sys.modules["tf_keras.legacy_tf_layers"] = module
    for name in ("base", "convolutional", "core", "normalization", "pooling"):
        part = importlib.import_module(f"{module.__name__}.{name}")
        sys.modules[f"tf_keras.legacy_tf_layers.{name}"] = part


# --- other packages ------------------------------------------------------------------------


def _fonts_lack_getsize() -> bool:
    from PIL import ImageFont

    return not hasattr(ImageFont.FreeTypeFont, "getsize")


def _add_font_getsize() -> None:
    from PIL import ImageFont

    def getsize(font: Any, text: str) -> tuple[int, int]:
        """Returns width and height of `text` in pixels, measured from the origin as in Pillow 9."""
        _, _, right, bottom = font.getbbox(text)
        return int(right), int(bottom)

    fonts: tuple[Any, ...] = (ImageFont.FreeTypeFont, ImageFont.ImageFont)
    for font in fonts:
        if not hasattr(font, "getsize"):
            font.getsize = getsize


def _import_fails(name: str) -> Callable[[], bool]:
    def test() -> bool:
        try:
            with quiet():
                importlib.import_module(name)
        except Exception:  # Loading a binary package can raise anything: NotFoundError, OSError, ...
            return True
        return False

    return test


def _stub_tensorflow_io() -> None:
    _add_absent_module("tensorflow_io", "install tensorflow-io; only DeepMAC models need it")


def _stub_lvis() -> None:
    reason = "install lvis; only LVIS evaluation needs it"
    for name in ("lvis", "lvis.lvis", "lvis.eval", "lvis.results"):
        _add_absent_module(name, reason)
    for name in ("lvis", "eval", "results"):
        setattr(sys.modules["lvis"], name, sys.modules[f"lvis.{name}"])


_OBJECT_DETECTION_REPAIRS: tuple[tuple[Repair, Callable[[], bool], Callable[[], None]], ...] = (
    (
        Repair("protobuf", "protobuf 4 and later reject the API's generated message classes"),
        _generated_messages_are_refused,
        _install_proto_finder,
    ),
    (
        Repair("tf.estimator", "TensorFlow removed the module; the API still imports it"),
        _estimator_is_missing,
        _add_absent_estimator,
    ),
    (
        Repair(
            "control_flow_ops", "TensorFlow moved case, cond and while_loop, which tf_slim imports from there"
        ),
        _control_flow_names_are_missing,
        _add_control_flow_names,
    ),
    (
        Repair("FreeTypeFont.getsize", "Pillow 10 removed this method, which the API uses to draw boxes"),
        _fonts_lack_getsize,
        _add_font_getsize,
    ),
    (
        Repair("tensorflow_io", "the package is missing or does not load; only DeepMAC needs it"),
        _import_fails("tensorflow_io"),
        _stub_tensorflow_io,
    ),
    (
        Repair("lvis", "the package is missing; only LVIS evaluation needs it"),
        _import_fails("lvis"),
        _stub_lvis,
    ),
)
