"""Complete int8 networks as plain graphs, built from an architecture or a file, written to .tflite or ONNX.

Graphs are written directly, without a converter, in a few hundredths of a second per network. Such files
are for timing; the detectors that users deploy come from `tflite_export.export.convert`.
"""

from tflite_export.graphs.author import Settings, block_graph, network_graph
from tflite_export.graphs.graph import Graph, Node, QuantizedTensor

__all__ = ["Graph", "Node", "QuantizedTensor", "Settings", "block_graph", "network_graph"]
