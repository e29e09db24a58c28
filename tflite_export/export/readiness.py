"""Judges whether a .tflite file is ready for an accelerator: static check, compiler, emulation."""

import os
import sys
from pathlib import Path
from typing import Any

from mobiledets_tf import files
from mobiledets_tf.errors import InputError, unknown_name
from mobiledets_tf.version import __version__
from tflite_export import devices
from tflite_export.tflite import flatbuffer, labels, metadata, model_file, suppression
from tflite_export.tflite.layout import INPUT
from tflite_export.tflite.model_file import ModelFile

_EMULATED_IMAGES = 4


def judge(
    path: str,
    target: str,
    output_dir: str | os.PathLike,
    variant: str | None = None,
    label_file: str | None = None,
    eval_files: list[str] | None = None,
) -> dict[str, Any]:
    """Checks a file for an accelerator and compiles it where the vendor's compiler is installed.

    Args:
      path: a .tflite file that is not compiled yet.
      target: one of `devices.COMPILING`.
      output_dir: folder for the compiled file.
      variant: the chip; None for the target's default.
      label_file: class names to add to a copy of the file, which is then judged in its place.
      eval_files: TFRecord files of images on which the chip is emulated; only for `hexagon`.

    Returns:
      The verdict, JSON-ready: `model`, `target`, `ready`, `findings`, `operations`, `compiler`; for the Edge
      TPU `parameters` and `coverage`; with `eval_files`, `emulation`.

    Raises:
      InputError: the file cannot be read or is compiled already, the variant is unknown, or the labels do
        not fit.
    """
    device = devices.load(target)
    variants = _variant(device, target, variant)
    model = model_file.read(path)
    model_file.refuse_compiled(model, path, "give the file that it was compiled from")
    judged = path if label_file is None else _labelled(path, label_file, output_dir)
    # Compile even if the check found faults: the compiler may still map a part of the file.
    compilation = device.compile_model(judged, output_dir, *variants)
    ready, findings = devices.judged(device.check(model), compilation)
    verdict = {
        "model": judged,
        "target": target,
        "ready": ready,
        "findings": [finding.to_dict() for finding in findings],
        "operations": model.histogram(),
    }
    if target == "edgetpu":
        verdict |= {"parameters": device.parameters(model), "coverage": device.coverage(model)}
    verdict["compiler"] = compilation.to_dict()
    if eval_files:
        verdict["emulation"] = _emulation(device, model, path, eval_files)
    return verdict


def _variant(device: Any, target: str, variant: str | None) -> tuple[str, ...]:
    if variant is None:
        return ()
    if not device.COMPILE_VARIANTS:
        raise InputError(f"--variant={variant} with --target={target}, which has no variants")
    if variant not in device.COMPILE_VARIANTS:
        raise unknown_name(f"variant of {target}", variant, device.COMPILE_VARIANTS)
    return (variant,)


def _labelled(path: str, label_file: str, output_dir: str | os.PathLike) -> str:
    """Writes a copy of the detector with labels and metadata, and returns its path."""
    data = Path(path).read_bytes()
    unpacked = flatbuffer.unpack(data)
    settings, options = suppression.of_file(unpacked), suppression.options_of(unpacked)
    if settings is None or options is None:
        raise InputError(f"--labels requires TFLite_Detection_PostProcess, which model {path!r} lacks")
    names = labels.read(label_file, options["num_classes"])
    stem = Path(path).stem
    data = metadata.add(data, names, stem, settings.score_threshold, __version__)
    copy = Path(output_dir) / f"{stem}_labels.tflite"
    with files.atomic_path(copy) as temporary:
        temporary.write_bytes(data)
    print(f"wrote a copy with labels and metadata: {copy}", file=sys.stderr)
    return str(copy)


def _emulation(device: Any, model: ModelFile, path: str, eval_files: list[str]) -> dict[str, Any]:
    """Returns the difference between the emulated chip and LiteRT, or why it cannot be measured."""
    # Imported here because it loads TensorFlow, which the static check and the compilers do not need.
    from tflite_export.export import quantize

    shape = model.inputs[0].shape if model.inputs else ()
    if len(shape) != 4:
        return {"reason": f"the input has shape {shape}; allowed: one image"}
    samples = quantize.from_records(eval_files, shape[1:3], _EMULATED_IMAGES, seed=0).samples()
    try:
        return device.emulation_difference(path, (sample[INPUT] for sample in samples))
    except (InputError, RuntimeError) as error:
        return {"reason": " ".join(str(error).split())[:300]}
