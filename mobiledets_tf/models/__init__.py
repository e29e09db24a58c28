"""Keras models of any architecture: flat functional models of plain Keras layers."""

from mobiledets_tf.models.backbone import build_backbone
from mobiledets_tf.models.ssdlite import build_detector

__all__ = ["build_backbone", "build_detector"]
