"""Latency models, which predict the cost of a network from its decision vector, without TensorFlow."""

from mobiledets_tf.latency.features import LayerOneHot
from mobiledets_tf.latency.kinds import KINDS
from mobiledets_tf.latency.madds import madds_model
from mobiledets_tf.latency.model import HEADS, LatencyModel, load, save
from mobiledets_tf.latency.shipped import shipped_paths

__all__ = ["HEADS", "KINDS", "LatencyModel", "LayerOneHot", "load", "madds_model", "save", "shipped_paths"]
