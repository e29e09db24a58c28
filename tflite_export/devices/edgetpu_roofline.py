"""Edge TPU latency by a roofline formula, from published hardware figures and published latencies.

This is not a measurement; everything that shows it calls it modelled.

Hardware: 4 TOPS of int8 (Coral's data sheets); a 64x64 array and 32 GB/s of memory (Boroumand et
al., "Google Neural Network Models for Edge Devices", arXiv 2109.14320, as recalled). The clock follows
from these figures. Channels fill the array in steps of 64; a depthwise convolution uses one row of it.

Calibration: two factors over the peak, fitted to four latencies of SSDLite at 320x320 on the Edge TPU
of the Pixel 4: MobileDet-EdgeTPU 6.9 ms (the released config), MobileNetV2 x1.0 6.5, x1.5 9.0,
MobileDet-DSP 8.6 ms (the paper's main table, arXiv 2004.14525, as recalled). The formula gives 7.0,
6.6, 9.0 and 8.4 ms.
"""

import math

import numpy as np

from tflite_export.graphs import Graph, Node

LANES = 64
CLOCK_HZ = 4e12 / 2 / LANES**2
MEMORY_BYTES_PER_S = 32e9
# Factors over the peak for costs outside the formula (filling the array, moving maps, control).
FULL_FACTOR = 1.5
DEPTHWISE_FACTOR = 2.7


def milliseconds(graph: Graph) -> float:
    """Returns the time of one inference; each operation takes the longer of computing and moving its maps."""
    return 1e3 * sum(max(_compute_s(graph, node), _memory_s(graph, node)) for node in graph.nodes)


def _compute_s(graph: Graph, node: Node) -> float:
    if node.weights is None:
        return 0.0
    outputs, height, width, inputs = node.weights.kernel.shape
    _, out_height, out_width, _ = graph.tensors[node.output].shape
    steps = out_height * out_width * height * width * math.ceil(inputs / LANES)
    if node.op == "DEPTHWISE_CONV_2D":
        return DEPTHWISE_FACTOR * steps / CLOCK_HZ
    return FULL_FACTOR * steps * math.ceil(outputs / LANES) / CLOCK_HZ


def _memory_s(graph: Graph, node: Node) -> float:
    size = sum(int(np.prod(graph.tensors[name].shape)) for name in (*node.inputs, node.output))
    return size / MEMORY_BYTES_PER_S
