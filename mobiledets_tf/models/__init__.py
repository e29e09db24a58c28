"""Keras models of any architecture: flat functional models of plain Keras layers.

`MobileDet` makes a detector with fresh or trained weights, `build_detector` and `build_backbone` make
networks with fresh weights, and `decode_detections` turns a detector's outputs into boxes.
"""

from typing import Any

from mobiledets_tf.models.backbone import build_backbone
from mobiledets_tf.models.postprocess import decode_detections
from mobiledets_tf.models.ssdlite import build_detector

__all__ = ["MobileDet", "build_backbone", "build_detector", "decode_detections"]


def __getattr__(name: str) -> Any:
    """Loads `MobileDet` when a user asks for it.

    It reads weights and so belongs above this package, which must not depend on them. No module of the
    project imports it from here.
    """
    if name == "MobileDet":
        from mobiledets_tf.mobiledet import MobileDet

        return MobileDet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
