"""Imports the weights of a .tflite detector into the Keras network.

In a file, batch normalisation is folded into the convolutions, and names are not reliable. Its
convolutions form a tree: the parent of a convolution is the last convolution before its input,
whatever additions, activations, gates or type conversions lie between. The project's own lowering
yields the same tree, so both trees are traversed together and compared by operation, kernel shape and
strides.

The module reads files of the old TOCO converter (uint8, one scale per tensor) and of the current
converter (int8, one scale per channel; float32; float16 weights behind DEQUANTIZE).
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobiledets_tf import architecture as architectures
from mobiledets_tf.architecture import ANCHORS_PER_LOCATION, Architecture
from mobiledets_tf.architecture.head import BOX_CODE_SIZE
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights.imported_weights import Account, Convolution, Target, convolutions
from tflite_export.tflite import model_file

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}
_FRESH_NORM = "folded into the convolution; now the identity, with the bias as its offset"


@dataclass
class Node:
    """A convolution of a file, with the convolutions that follow it.

    Attributes:
      index: index of the operation.
      depthwise: whether it is a depthwise convolution.
      kernel: name and value, float32 [height, width, in, out] (out is 1 if depthwise).
      bias: name and value, float32 [out].
      strides: strides of the operation.
      feeds_scores: whether a LOGISTIC follows with no other convolution between.
      children: the next convolutions.
    """

    index: int
    depthwise: bool
    kernel: tuple[str, np.ndarray]
    bias: tuple[str, np.ndarray]
    strides: int
    feeds_scores: bool = False
    children: list["Node"] = field(default_factory=list)

    @property
    def is_leaf(self) -> bool:
        """Whether no convolution follows."""
        return not self.children

    def fits(self, conv: Convolution) -> bool:
        """Returns whether operation, kernel shape and strides equal those of a convolution of the network."""
        same_shape = self.kernel[1].shape == conv.kernel_shape
        return self.depthwise == conv.op.depthwise and same_shape and self.strides == conv.op.strides

    def __str__(self) -> str:
        kind = "DEPTHWISE_CONV_2D" if self.depthwise else "CONV_2D"
        return f"operation {self.index} ({kind}, kernel {self.kernel[1].shape}, strides {self.strides})"


def read(
    path: str | os.PathLike,
    architecture: Architecture | None = None,
    num_classes: int | None = None,
    depth_multiplier: float = 1.0,
) -> Account:
    """Reads a .tflite detector into canonical names; batch normalisation becomes the identity.

    Args:
      path: an SSDLite MobileDet, quantised or float, with or without post-processing.
      architecture: the architecture of the file; default: the published network that fits.
      num_classes: number of classes of the network; default: that of the file. With another number, the
        last convolutions of the class predictors keep their initial weights.
      depth_multiplier: the depth multiplier that the file was made with.

    Raises:
      InputError: the file is not a .tflite file, is damaged, or contains another network (the message
        names the first difference).
    """
    stem, image_size = _Graph(path).tree()
    in_file = _num_classes(stem, path)
    names = [architecture] if architecture else [architectures.load(n) for n in architectures.PUBLISHED]
    faults = []
    for candidate in names:
        target = Target(candidate, num_classes or in_file, image_size, depth_multiplier)
        account = Account(os.fspath(path), "tflite", target, folded_norm=True)
        try:
            _fill(account, stem, in_file)
            return account
        except _Differs as difference:
            faults.append(f"not {candidate.name!r}: {difference}")
    raise InputError(f"model {os.fspath(path)!r} belongs to another network: {'; '.join(faults)}")


def resized(account: Account, image_size: tuple[int, int]) -> Account:
    """Returns the same weights for another image size."""
    return dataclasses.replace(account, target=dataclasses.replace(account.target, image_size=image_size))


class _Differs(Exception):
    """Raised when a file differs from a network; the message says where."""


def _fill(account: Account, stem: Node, classes_in_file: int) -> None:
    target = account.target
    scaled = target.architecture.scaled(target.depth_multiplier)
    # The trees are compared with the file's class count; weights that depend on it are left out later.
    ours = list(convolutions(scaled, classes_in_file, target.image_size))
    for conv, node in _match(ours, stem):
        if conv.depends_on_classes and classes_in_file != target.num_classes:
            why = f"it has {classes_in_file} classes, but the network has {target.num_classes}"
            account.leave_fresh([node.kernel[0], node.bias[0]], [conv.kernel, conv.bias], why)
        else:
            _take(account, conv, node)


def _take(account: Account, conv: Convolution, node: Node) -> None:
    account.take(node.kernel[0], node.kernel[1], conv.kernel, conv.kernel_shape)
    shape = (conv.op.out_channels,)
    bias = conv.norm("beta") if conv.op.batch_norm else conv.bias
    account.take(node.bias[0], node.bias[1], bias, shape)
    if conv.op.batch_norm:
        for part, value in (("gamma", 1.0), ("moving_mean", 0.0), ("moving_variance", 1.0 - conv.epsilon)):
            name = conv.norm(part)
            account.weights[name] = np.full(shape, value, np.float32)
            account.fresh[name] = _FRESH_NORM


# --- two trees side by side -------------------------------------------------------------------


def _match(ours: list[Convolution], stem: Node) -> Iterator[tuple[Convolution, Node]]:
    """Pairs every convolution of the network with one of the file.

    Raises:
      _Differs: at the first convolution without a partner, or if the file has further ones.
    """
    trunk = [conv for conv in ours if not conv.layer.startswith("predictor")]
    ends = _map_ends(trunk)
    node: Node | None = None
    used = set()
    for conv in trunk:
        candidates = [stem] if node is None else [c for c in node.children if not _is_predictor(c)]
        node = _only([c for c in candidates if c.fits(conv)], conv, candidates)
        used.add(node.index)
        yield conv, node
        if conv.name in ends:
            for pair in _match_predictors(ours, ends[conv.name], node):
                used.add(pair[1].index)
                yield pair
    left = [n for n in _all_nodes(stem) if n.index not in used]
    if left:
        raise _Differs(f"{left[0]} has no counterpart in the network")


def _map_ends(trunk: list[Convolution]) -> dict[str, int]:
    """Maps the name of the convolution that ends each of the six feature maps to the map's number.

    C4 is the end of block 5, C5 the end of the backbone; the extra levels follow.
    """
    last_of = {conv.layer: conv.name for conv in trunk}
    backbone = [layer for layer in last_of if not layer.startswith("extra")]
    c4 = [layer for layer in backbone if layer.startswith("block5_")][-1]
    maps = [c4, backbone[-1], *(layer for layer in last_of if layer.startswith("extra"))]
    return {last_of[layer]: number for number, layer in enumerate(maps)}


def _is_predictor(node: Node) -> bool:
    """Returns whether a node is a depthwise convolution followed by exactly one last convolution."""
    return node.depthwise and len(node.children) == 1 and node.children[0].is_leaf


def _match_predictors(
    ours: Sequence[Convolution], number: int, node: Node
) -> Iterator[tuple[Convolution, Node]]:
    found = [child for child in node.children if _is_predictor(child)]
    for task in ("box", "class"):
        pair = [conv for conv in ours if conv.layer == f"predictor{number}_{task}"]
        of_task = [n for n in found if n.children[0].feeds_scores == (task == "class")]
        first = _only([n for n in of_task if n.fits(pair[0])], pair[0], of_task)
        yield pair[0], first
        yield pair[1], _only([n for n in first.children if n.fits(pair[1])], pair[1], first.children)


def _only(fitting: list[Node], conv: Convolution, candidates: list[Node]) -> Node:
    if len(fitting) == 1:
        return fitting[0]
    given = "; ".join(str(node) for node in candidates) or "nothing"
    raise _Differs(
        f"{conv.name} has kernel {conv.kernel_shape}, strides {conv.op.strides}; the file has {given} there"
    )


def _all_nodes(node: Node) -> Iterator[Node]:
    yield node
    yield from itertools.chain.from_iterable(_all_nodes(child) for child in node.children)


def _num_classes(stem: Node, path: str | os.PathLike) -> int:
    """Derives the class count from a class predictor: number of scores per anchor minus the background."""
    leaves = [n for n in _all_nodes(stem) if n.is_leaf and n.feeds_scores]
    boxes = [n for n in _all_nodes(stem) if n.is_leaf and not n.feeds_scores]
    if len(leaves) != len(ANCHORS_PER_LOCATION) or len(boxes) != len(leaves):
        raise InputError(
            f"model {os.fspath(path)!r} is not an SSDLite detector: {len(leaves)} class and {len(boxes)} box "
            f"predictors found, {len(ANCHORS_PER_LOCATION)} of each expected"
        )
    columns = [leaf.kernel[1].shape[-1] for leaf in (leaves[0], boxes[0])]
    return columns[0] * BOX_CODE_SIZE // columns[1] - 1


# --- the file's tree --------------------------------------------------------------------------


class _Graph:
    """Represents the operations of a .tflite file as a tree of convolutions."""

    def __init__(self, path: str | os.PathLike):
        self._name = os.fspath(path)
        self._model = model_file.read(path)
        model_file.refuse_compiled(self._model, path, "give the file that it was compiled from")
        data = Path(path).read_bytes()
        try:
            root = schema.Model.GetRootAs(data, 0)
            graph = root.Subgraphs(0)
            self._buffers = {}
            for index in range(graph.TensorsLength()):
                tensor = graph.Tensors(index)
                self._buffers[index] = root.Buffers(tensor.Buffer()).DataAsNumpy()
            operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
            self._inputs = [list(map(int, op.InputsAsNumpy())) for op in operators]
            self._outputs = [list(map(int, op.OutputsAsNumpy())) for op in operators]
            self._dimensions = [
                int(t.Quantization().QuantizedDimension()) if t.Quantization() else 0
                for t in (graph.Tensors(i) for i in range(graph.TensorsLength()))
            ]
            self._graph_input = int(graph.InputsAsNumpy()[0])
        except model_file.READ_ERRORS as error:
            raise InputError(f"model {self._name!r} is damaged or truncated: {error}") from error
        self._tensors = self._described()

    def _described(self) -> dict[int, model_file.Tensor]:
        found: dict[int, model_file.Tensor] = {}
        for op, inputs, outputs in zip(self._model.operators, self._inputs, self._outputs, strict=True):
            found |= dict(zip([i for i in inputs if i >= 0], op.inputs, strict=True))
            found |= dict(zip(outputs, op.outputs, strict=True))
        return found

    def tree(self) -> tuple[Node, tuple[int, int]]:
        """Returns the first convolution, with all that follow it, and (height, width) of the image."""
        try:
            return self._tree()
        except model_file.READ_ERRORS as error:
            raise InputError(f"model {self._name!r} is damaged or not a detector: {error}") from error

    def _tree(self) -> tuple[Node, tuple[int, int]]:
        # Maps a tensor to the index of the last convolution before it; operations are in order of execution.
        parent: dict[int, int | None] = {self._graph_input: None}
        nodes: dict[int, Node] = {}
        roots = []
        for op, inputs, outputs in zip(self._model.operators, self._inputs, self._outputs, strict=True):
            before = [parent[i] for i in inputs if i in parent]
            after: int | None
            if op.name in _CONVOLUTIONS:
                node = nodes[op.index] = self._node(op, inputs)
                if before and before[0] is not None:
                    nodes[before[0]].children.append(node)
                else:
                    roots.append(node)
                after = op.index
            elif not before:  # The path of a constant, such as DEQUANTIZE of float16 weights.
                continue
            else:
                after = max((b for b in before if b is not None), default=None)
            if op.name == "LOGISTIC":
                self._mark_scores(inputs[0], nodes)
            for output in outputs:
                parent[output] = after
        if len(roots) != 1:
            raise InputError(
                f"model {self._name!r} is not a detector: {len(roots)} convolutions read its input, "
                "expected 1"
            )
        shape = self._tensors[self._graph_input].shape
        return roots[0], (int(shape[1]), int(shape[2]))

    def _mark_scores(self, tensor: int, nodes: dict[int, Node]) -> None:
        """Marks the convolutions that lead to a LOGISTIC without another convolution between."""
        producer = {o: n for n, outputs in enumerate(self._outputs) for o in outputs}
        waiting = [tensor]
        while waiting:
            number = producer.get(waiting.pop())
            if number is None:
                continue
            if number in nodes:
                nodes[number].feeds_scores = True
            else:
                waiting += self._inputs[number]

    def _node(self, op: model_file.Operator, inputs: list[int]) -> Node:
        depthwise = op.name == "DEPTHWISE_CONV_2D"
        weights = self._constant(inputs[1])
        # The file has [out, height, width, in] or [1, height, width, channels], Keras [h, w, in, out].
        kernel = np.transpose(weights, (1, 2, 3, 0))
        channels = kernel.shape[2] if depthwise else kernel.shape[3]
        has_bias = len(inputs) > 2 and inputs[2] >= 0
        bias = self._constant(inputs[2], inputs) if has_bias else np.zeros(channels, np.float32)
        options = op.options
        if options.strideH != options.strideW or options.dilationHFactor != 1 or options.dilationWFactor != 1:
            raise ValueError(f"operation {op.index} has unequal strides or a dilation")
        bias_name = self._tensor_name(inputs[2]) if has_bias else f"zero bias of operation {op.index}"
        return Node(
            op.index, depthwise, (self._tensor_name(inputs[1]), kernel), (bias_name, bias), options.strideH
        )

    def _tensor_name(self, index: int) -> str:
        return f"{index}:{self._tensors[index].name}"

    def _constant(self, index: int, of_bias: list[int] | None = None) -> np.ndarray:
        """Returns a constant as float32, dequantised.

        Args:
          index: index of the tensor.
          of_bias: inputs of the convolution if the constant is its bias; a bias without a scale uses the
            scale of the input times that of the weights.
        """
        tensor = self._tensors[index]
        if not tensor.is_constant:
            return self._behind_dequantize(index)
        values = np.frombuffer(self._buffers[index].tobytes(), _DTYPES[tensor.dtype]).reshape(tensor.shape)
        if tensor.is_float:
            return values.astype(np.float32)
        scales, zeros = np.array(tensor.scales, np.float64), np.array(tensor.zero_points, np.float64)
        if not len(scales) and of_bias:
            scales = self._tensors[of_bias[0]].scales[0] * np.array(self._tensors[of_bias[1]].scales)
            zeros = np.zeros(len(scales))
        if not len(scales):
            raise ValueError(f"tensor {tensor.name!r} is {tensor.dtype} without a scale")
        along = [1] * values.ndim
        along[self._dimensions[index] if len(scales) > 1 else 0] = len(scales)
        zeros = zeros if len(zeros) == len(scales) else np.zeros(len(scales))
        return ((values.astype(np.float64) - zeros.reshape(along)) * scales.reshape(along)).astype(np.float32)

    def _behind_dequantize(self, index: int) -> np.ndarray:
        for op, inputs, outputs in zip(self._model.operators, self._inputs, self._outputs, strict=True):
            if index in outputs and op.name == "DEQUANTIZE":
                return self._constant(inputs[0])
        raise ValueError(f"tensor {self._tensors[index].name!r} is not a constant")
