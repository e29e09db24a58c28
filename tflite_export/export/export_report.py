"""Sections of an export's report: the network, its source, the options and the measurements."""

import importlib.metadata
import os
import tempfile
from typing import Any

from mobiledets_tf import architecture as architectures
from mobiledets_tf.version import __version__
from mobiledets_tf.weights.trained_network import Source
from tflite_export import devices
from tflite_export.devices import block_times, edgetpu, host_cpu, int8_check
from tflite_export.export.convert import Options
from tflite_export.tflite.model_file import ModelFile

# Number of runs to time a single block, which gives a rough figure only.
_BLOCK_RUNS = 15
PACKAGES = ("tensorflow", "tf_keras", "ai-edge-litert", "numpy", "pycocotools")


def network_section(source: Source) -> dict[str, Any]:
    """Returns figures of the network at its actual widths."""
    figures = architectures.describe(source.scaled(), source.num_classes, source.image_size)
    names = ("num_classes", "image_size", "params", "trainable_params", "madds", "anchors")
    return {"architecture": source.architecture.name, "depth_multiplier": source.depth_multiplier} | {
        name: figures[name] for name in names
    }


def options_section(options: Options) -> dict[str, Any]:
    """Returns the options that the file was made with."""
    suppression = options.suppression
    return {
        "quantization": options.quantization,
        "input_type": options.input_type,
        "weights": "per_tensor" if options.per_tensor else "per_channel",
        "postprocess": options.postprocess,
        "max_detections": suppression.max_detections,
        "iou_threshold": suppression.iou_threshold,
        "score_threshold": suppression.score_threshold,
        "nms": suppression.nms,
    }


def readiness(model: ModelFile, path: str | os.PathLike) -> dict[str, Any]:
    """Returns the verdict for each accelerator, by a static check and the compilers available here."""
    findings = edgetpu.check(model)
    verdicts = {
        "edgetpu": {
            "ready": not findings,
            "findings": [finding.to_dict() for finding in findings],
            "parameters": edgetpu.parameters(model),
            "coverage": edgetpu.coverage(model),
        }
    }
    return verdicts | {name: _compiled(name, model, path) for name in ("hexagon", "ethos_u")}


def _compiled(name: str, model: ModelFile, path: str | os.PathLike) -> dict[str, Any]:
    device = devices.load(name)
    findings = device.check(model)
    if findings:
        compilation = devices.Compilation("not compiled", "", "the static check found faults")
    else:
        # Only the verdict is needed here; mobiledets-compile writes the compiled file.
        with tempfile.TemporaryDirectory(prefix="mobiledets-") as folder:
            compilation = device.compile_model(path, folder)
        findings = devices.merged(findings, compilation)
    result = dict(compilation.result)
    if layers := result.pop("layers", None):
        result["block_cycles"] = block_cycles(layers)
    return {
        "ready": not findings and compilation.status != "failed",
        "findings": [finding.to_dict() for finding in findings],
        "compiler": {"status": compilation.status, "reason": compilation.reason} | result,
    }


def block_cycles(layers: list[dict[str, Any]]) -> dict[str, int]:
    """Returns the cycles of each block in Vela's table, in the network's order."""
    cycles: dict[str, int] = {}
    for layer in layers:
        name = layer["block"] or "other"
        cycles[name] = cycles.get(name, 0) + layer["cycles"]
    return cycles


def latency(model: ModelFile, path: str | os.PathLike) -> dict[str, Any]:
    """Measures latency on this host; for an int8 file also the latency of each block alone."""
    found = host_cpu.measure(path).to_dict()
    if int8_check.check(model):
        return found
    times = block_times.measure(host_cpu, path, host_cpu.DEFAULT_VARIANT, runs=_BLOCK_RUNS, seconds=0)
    return found | {"blocks_ms": times}


def versions() -> dict[str, str]:
    """Returns the versions of this project and of the packages that an export depends on."""
    return {"mobiledets-tf": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES}
