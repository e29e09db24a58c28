"""Latency models: numbers that predict a cost from a decision vector. No TensorFlow."""

from mobiledets_tf.latency.features import LayerOneHot
from mobiledets_tf.latency.madds import madds_model
from mobiledets_tf.latency.model import LatencyModel, load, save

__all__ = ["LatencyModel", "LayerOneHot", "load", "madds_model", "save"]
