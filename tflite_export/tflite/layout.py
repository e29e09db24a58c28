"""The interface of a detector's file: the names and the order of its input and outputs.

Clients find the four outputs in one of two ways, and the files of this project support both. Coral's API
(pycoral `detect.get_objects`, libcoral `GetDetectionResults`) finds them in the file's only signature by
the names `output_0` to `output_3`, and rejects a fifth. Without a signature it uses the order boxes,
classes, scores, count, as Frigate and TensorFlow's samples always do.
"""

from ai_edge_litert import schema_py_generated as schema

from tflite_export.tflite.model_file import CUSTOM_OP

SIGNATURE = "serving_default"
INPUT = "image"
# The order in which the post-process op writes them, and so the order of the file's tensors.
DETECTION_OUTPUTS = ("boxes", "classes", "scores", "count")
RAW_OUTPUTS = ("raw_boxes", "class_scores")
# The names that Coral's API uses for them.
SIGNATURE_NAMES = {"count": "output_0", "scores": "output_1", "classes": "output_2", "boxes": "output_3"}


def post_process_of(model: schema.ModelT) -> schema.OperatorT | None:
    """Returns the post-process op of a file's first subgraph, or None."""
    for op in model.subgraphs[0].operators:
        if model.operatorCodes[op.opcodeIndex].customCode == CUSTOM_OP.encode():
            return op
    return None


def arrange(model: schema.ModelT) -> bool:
    """Sorts the outputs of a file with post-processing and adds a signature with Coral's names.

    Args:
      model: the file, modified in place. A file without post-processing is not changed.

    Returns:
      Whether the file has a post-process op.
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
    # In the order of the tensors, because LiteRT's CompiledModel matches buffers to names by position.
    definition.outputs = [_entry(SIGNATURE_NAMES[output], index) for output, index in outputs.items()]
    model.signatureDefs = [definition]
    return True


def _entry(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(index)
    return entry


def follow(model: schema.ModelT, origin: schema.ModelT) -> None:
    """Copies to a compiled file the output order and the signature of the file it was compiled from.

    A compiler renumbers the tensors. Inputs are matched by position, and outputs by what the post-process
    op writes; unless both files have that op, nothing is changed.
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
