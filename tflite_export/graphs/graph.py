"""An int8 network as data: tensors, nodes, weights. Names of operations are TFLite's."""

import collections
import dataclasses

import numpy as np

# What every writer knows.
OPS = (
    "ADD", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "HARD_SWISH", "LOGISTIC", "MEAN", "MUL",
    "QUANTIZE", "RESHAPE",
)  # fmt: skip
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """An int8 activation: real value = scale * (stored value - zero_point).

    Attributes:
      name: unique in its graph.
      shape: with the batch of 1; maps are NHWC.
      scale, zero_point: zero_point in int8 terms, -128 to 127.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Of a convolution.

    Attributes:
      kernel: int8 [out, height, width, in]; depthwise [1, height, width, channels].
      scales: float32 [out channels].
      bias: int32 [out channels], in units of input scale times kernel scale.
    """

    kernel: np.ndarray
    scales: np.ndarray
    bias: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes:
      op: one of `OPS`.
      inputs, output: names of tensors.
      strides: of a convolution; padding is SAME.
      relu6: a clip to [0, 6] is part of it.
      weights: of a convolution.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    strides: int = 1
    relu6: bool = False
    weights: Weights | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in an order in which they can run, one input."""

    name: str
    tensors: dict[str, QuantizedTensor]
    nodes: tuple[Node, ...]
    input: str
    outputs: tuple[str, ...]

    def histogram(self) -> dict[str, int]:
        """How many operations of each kind."""
        return dict(collections.Counter(node.op for node in self.nodes))

    def signature(self) -> list[tuple]:
        """Operations with what a device can tell apart, sorted: equal for equal networks."""
        return sorted(self._describe(node) for node in self.nodes)

    def _describe(self, node: Node) -> tuple:
        kernel = node.weights.kernel.shape if node.weights else ()
        shapes = tuple(self.tensors[name].shape for name in node.inputs)
        return node.op, shapes, self.tensors[node.output].shape, kernel, node.strides, node.relu6

    def madds(self) -> int:
        """Multiply-adds of all convolutions."""
        total = 0
        for node in self.nodes:
            if node.weights:
                _, height, width, _ = self.tensors[node.output].shape
                total += height * width * node.weights.kernel.size
        return total
