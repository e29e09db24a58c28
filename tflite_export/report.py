"""The report of an export: what was exported, from what, and how good it was measured to be."""

import importlib.metadata
from typing import Any

from mobiledets_tf import architecture as architectures
from mobiledets_tf.version import __version__
from tflite_export.convert import Options
from tflite_export.devices import edgetpu
from tflite_export.inspect import ModelFile
from tflite_export.source import Source

SCHEMA_VERSION = 1
PACKAGES = ("tensorflow", "tf_keras", "ai-edge-litert", "numpy", "pycocotools")


def network_section(source: Source) -> dict[str, Any]:
    """Figures of the network at its real widths."""
    figures = architectures.describe(source.scaled(), source.num_classes, source.image_size)
    names = ("num_classes", "image_size", "params", "trainable_params", "madds", "anchors")
    return {"architecture": source.architecture.name, "depth_multiplier": source.depth_multiplier} | {
        name: figures[name] for name in names
    }


def options_section(options: Options) -> dict[str, Any]:
    """How the file was made."""
    suppression = options.suppression
    return {
        "quantization": options.quantization,
        "input_type": options.input_type,
        "postprocess": options.postprocess,
        "max_detections": suppression.max_detections,
        "iou_threshold": suppression.iou_threshold,
        "score_threshold": suppression.score_threshold,
    }


def readiness(model: ModelFile) -> dict[str, Any]:
    """The static verdict for each accelerator."""
    findings = edgetpu.check(model)
    return {
        "edgetpu": {
            "ready": not findings,
            "findings": [finding.to_dict() for finding in findings],
            "parameters": edgetpu.parameters(model),
            "coverage": edgetpu.coverage(model),
        }
    }


def versions() -> dict[str, str]:
    """Versions of this project and of what an export depends on."""
    return {"mobiledets-tf": __version__} | {name: importlib.metadata.version(name) for name in PACKAGES}
