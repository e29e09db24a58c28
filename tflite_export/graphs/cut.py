"""Cuts a network into the blocks of its architecture, each as a graph that can be timed alone."""

from tflite_export.graphs.graph import Graph, Node
from tflite_export.tflite import blocks


def cut(graph: Graph) -> dict[str, Graph]:
    """Returns the graph of each block by its name, in the order of the network.

    A node belongs to the block that its output is named after, otherwise to the block that all its
    inputs come from. A block that reads more than one tensor of other blocks (a final concatenation)
    has no single input to time it with, so it is left out.
    """
    members: dict[str, list[Node]] = {}
    owner: dict[str, str] = {}
    for node in graph.nodes:
        before = {owner.get(source, "") for source in node.inputs}
        block = blocks.of_name(node.output) or (before.pop() if len(before) == 1 else "")
        owner[node.output] = block
        members.setdefault(block, []).append(node)
    members.pop("", None)
    found = {name: _part(graph, name, nodes) for name, nodes in members.items()}
    return {name: part for name, part in found.items() if part is not None}


def _part(graph: Graph, name: str, nodes: list[Node]) -> Graph | None:
    made = {node.output for node in nodes}
    inputs = sorted({source for node in nodes for source in node.inputs} - made)
    if len(inputs) != 1:
        return None
    inside = {id(node) for node in nodes}
    outside = {source for node in graph.nodes if id(node) not in inside for source in node.inputs}
    outputs = tuple(node.output for node in nodes if node.output in outside or node.output in graph.outputs)
    tensors = {key: graph.tensors[key] for key in (*inputs, *(node.output for node in nodes))}
    return Graph(name, tensors, tuple(nodes), inputs[0], outputs)
