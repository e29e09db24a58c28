"""How a detector's file looks from outside: the names and the order of what goes in and comes out.

Clients find the four outputs in one of two ways, and a file of ours serves both. Coral's API (pycoral
`detect.get_objects`, libcoral `GetDetectionResults`) takes them from the file's one signature by the
names `output_0` to `output_3`, and refuses a fifth. Where there is no signature it takes the tensors
in the order boxes, classes, scores, count, as Frigate and TensorFlow's samples always do.
"""

from ai_edge_litert import schema_py_generated as schema

from tflite_export.inspect import CUSTOM_OP

SIGNATURE = "serving_default"
INPUT = "image"
# In the order of the post-process op, which is that of the file's tensors.
DETECTION_OUTPUTS = ("boxes", "classes", "scores", "count")
RAW_OUTPUTS = ("raw_boxes", "class_scores")
# The names that Coral's API knows them by.
SIGNATURE_NAMES = {"count": "output_0", "scores": "output_1", "classes": "output_2", "boxes": "output_3"}


def post_process_of(model: schema.ModelT) -> schema.OperatorT | None:
    """The post-process op of a file's first subgraph, or None."""
    for op in model.subgraphs[0].operators:
        if model.operatorCodes[op.opcodeIndex].customCode == CUSTOM_OP.encode():
            return op
    return None


def arrange(model: schema.ModelT) -> bool:
    """Gives a file with post-processing its outputs in order, and a signature with Coral's names.

    Args:
      model: is changed. One without post-processing stays as it is.

    Returns:
      Whether there is a post-process op.
    """
    op = post_process_of(model)
    if op is None:
        return False
    graph = model.subgraphs[0]
    outputs = dict(zip(DETECTION_OUTPUTS, map(int, op.outputs), strict=True))
    graph.outputs = list(outputs.values())
    definition = (model.signatureDefs or [schema.SignatureDefT()])[0]
    definition.signatureKey = definition.signatureKey or SIGNATURE.encode()
    definition.subgraphIndex = 0
    definition.inputs = definition.inputs or [_entry(INPUT, graph.inputs[0])]
    # Listed as the tensors are: LiteRT's CompiledModel counts buffers and names by their places.
    definition.outputs = [_entry(SIGNATURE_NAMES[output], index) for output, index in outputs.items()]
    model.signatureDefs = [definition]
    return True


def _entry(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(index)
    return entry


def follow(model: schema.ModelT, origin: schema.ModelT) -> None:
    """Gives a compiled file the order of outputs and the signature of the file it was made from.

    A compiler numbers tensors anew. Inputs are known by their place, outputs by what the post-process
    op writes; without that op in both files nothing is changed.
    """
    ours, theirs = post_process_of(model), post_process_of(origin)
    if ours is None or theirs is None or len(ours.outputs) != len(theirs.outputs):
        return
    graph, before = model.subgraphs[0], origin.subgraphs[0]
    moved = dict(zip(map(int, theirs.outputs), map(int, ours.outputs), strict=True))
    moved |= dict(zip(map(int, before.inputs), map(int, graph.inputs), strict=False))
    if not all(int(index) in moved for index in before.outputs):
        return
    graph.outputs = [moved[int(index)] for index in before.outputs]
    model.signatureDefs = origin.signatureDefs
    for definition in model.signatureDefs or []:
        for entry in (*(definition.inputs or []), *(definition.outputs or [])):
            entry.tensorIndex = moved[int(entry.tensorIndex)]
