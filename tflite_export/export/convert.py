"""Converts a Keras detector to the bytes of a .tflite file."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from typing import cast

import numpy as np

from mobiledets_tf.compat import keras, tf
from mobiledets_tf.errors import InputError
from mobiledets_tf.native_output import held_back
from tflite_export.export import quantize
from tflite_export.export.postprocess import ExportModule
from tflite_export.tflite import flatbuffer, layout, suppression
from tflite_export.tflite.layout import SIGNATURE
from tflite_export.tflite.suppression import Suppression


@dataclasses.dataclass(frozen=True)
class Options:
    """Options that determine the kind of file to write.

    Attributes:
      quantization: `float`, `int8` (post-training), or `qat` (int8 with activation ranges from training).
      input_type: `int8`, `uint8` (raw pixels) or `float` (pixels scaled to [-1, 1]).
      postprocess: `tflite` for the TFLite_Detection_PostProcess op, `none` for raw outputs.
      suppression: settings of the post-processing.
      per_tensor: use one scale for all weights of a convolution instead of one per output channel.
    """

    quantization: str = "int8"
    input_type: str = "uint8"
    postprocess: str = "tflite"
    suppression: Suppression = Suppression()
    per_tensor: bool = False

    def __post_init__(self) -> None:
        if self.quantization == "float" and self.input_type != "float":
            raise InputError(f"--input_type={self.input_type} with --quantization=float; allowed: float")
        if self.quantization == "qat" and self.per_tensor:
            raise InputError("--per_tensor with --quantization=qat, whose weights were trained per channel")
        if self.quantization == "float" and self.per_tensor:
            raise InputError("--per_tensor applies to int8 weights, but --quantization is float")

    def as_float(self) -> "Options":
        """Returns the options of the same file without quantisation."""
        return Options("float", "float", self.postprocess, self.suppression)


def convert(
    detector: keras.Model,
    anchors: np.ndarray,
    options: Options,
    calibration: quantize.Calibration | None = None,
    progress: Callable | None = None,
) -> bytes:
    """Converts a detector.

    Args:
      detector: a model of `mobiledets_tf.models.build_detector`; for `qat` the network of
        `mobiledets_tf.models.quantized.quantize_detector` with its ranges set.
      anchors: [anchors, 4] (ymin, xmin, ymax, xmax).
      options: the kind of file to write.
      calibration: images that set the activation ranges; required for `int8`.
      progress: wraps the iterable of calibration images; called with it and with the stream to print to.

    Returns:
      The content of a .tflite file; see `layout` for the names and the order of its outputs.

    Raises:
      InputError: a calibration image cannot be decoded.
      ValueError: `calibration` is missing.
      RuntimeError: the converter failed; its output is in the message.
    """
    if options.quantization == "int8" and calibration is None:
        raise ValueError(
            "int8 without calibration: give the images, or noise, that set the activation ranges"
        )
    raw_outputs = options.postprocess == "none"
    module = ExportModule(detector, None if raw_outputs else anchors, options.suppression)
    with tempfile.TemporaryDirectory(prefix="mobiledets-") as folder, held_back() as stream:
        tf.saved_model.save(module, folder, signatures={SIGNATURE: module.detect})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        converter.allow_custom_ops = not raw_outputs
        if options.quantization == "int8":
            wrap = (lambda images: progress(images, stream)) if progress else (lambda images: images)
            samples = functools.partial(cast(quantize.Calibration, calibration).samples, wrap)
            quantize.configure(converter, options.input_type, raw_outputs, samples)
            # This option has no public name; the converter's version is pinned.
            converter._experimental_disable_per_channel = options.per_tensor
        elif options.quantization == "qat":
            quantize.configure_trained(converter, options.input_type, raw_outputs)
        return _finished(converter.convert(), options)


def _finished(data: bytes, options: Options) -> bytes:
    """Rearranges the outputs: the converter sorts them by name, but clients expect other names and order."""
    model = flatbuffer.unpack(data)
    if layout.arrange(model):
        suppression.apply(model, options.suppression)
    return flatbuffer.pack(model)
