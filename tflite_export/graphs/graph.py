"""An int8 network as data: tensors, nodes, weights. Operations have TFLite's names."""

import collections
import dataclasses

import numpy as np

# Operations that every graph writer supports.
OPS = (
    "ADD",
    "CONCATENATION",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "HARD_SWISH",
    "LOGISTIC",
    "MEAN",
    "MUL",
    "QUANTIZE",
    "RESHAPE",
)
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """An int8 activation: real value = scale * (stored value - zero_point).

    Attributes:
      name: unique name in its graph.
      shape: shape including the batch of 1; feature maps are NHWC.
      scale, zero_point: quantisation parameters; zero_point is an int8 value, -128 to 127.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Weights of a convolution.

    Attributes:
      kernel: int8 [out, height, width, in]; [1, height, width, channels] if depthwise.
      scales: float32 [out channels], scales of the kernel.
      bias: int32 [out channels], in units of the input scale times the kernel scale.
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
      strides: strides of a convolution, whose padding is SAME.
      relu6: whether the operation includes a clip to [0, 6].
      weights: weights of a convolution, otherwise None.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    strides: int = 1
    relu6: bool = False
    weights: Weights | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A network with one input; its nodes are in a valid order of execution."""

    name: str
    tensors: dict[str, QuantizedTensor]
    nodes: tuple[Node, ...]
    input: str
    outputs: tuple[str, ...]

    def histogram(self) -> dict[str, int]:
        """Counts the operations of each kind."""
        return dict(collections.Counter(node.op for node in self.nodes))

    def signature(self) -> list[tuple]:
        """Returns a sorted list of all that a device can tell apart; equal for equal networks."""
        return sorted(self._describe(node) for node in self.nodes)

    def _describe(self, node: Node) -> tuple:
        kernel = node.weights.kernel.shape if node.weights else ()
        shapes = tuple(self.tensors[name].shape for name in node.inputs)
        return node.op, shapes, self.tensors[node.output].shape, kernel, node.strides, node.relu6

    def madds(self) -> int:
        """Counts the multiply-adds of all convolutions."""
        total = 0
        for node in self.nodes:
            if node.weights:
                _, height, width, _ = self.tensors[node.output].shape
                total += height * width * node.weights.kernel.size
        return total
