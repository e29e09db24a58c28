"""How other programs read a detector's file: their steps as documented, written anew.

Each takes an `ai_edge_litert` interpreter on which an image was run and gives
(box (ymin, xmin, ymax, xmax) in parts of the image, score, class id from 0) of each detection.
"""

import re

import numpy as np


def _values(interpreter, index):
    return interpreter.get_tensor(index)


def _rows(boxes, classes, scores, count):
    return [
        (tuple(map(float, boxes[i])), float(scores[i]), int(round(float(classes[i]))))
        for i in range(int(count))
    ]


def pycoral(interpreter):
    """`detect.get_objects` of pycoral 2: by the one signature, else by the order and size of outputs."""
    signatures = interpreter._get_full_signature_list()
    if signatures:
        if len(signatures) > 1:
            raise ValueError("pycoral takes one signature only")
        outputs = next(iter(signatures.values()))["outputs"]
        count, scores, classes, boxes = (_values(interpreter, outputs[f"output_{i}"])[0] for i in range(4))
        return _rows(boxes, classes, scores, count)
    return by_place(interpreter)


def by_place(interpreter):
    """Coral without a signature: a fourth output of one number says which of two orders it is."""
    found = [_values(interpreter, detail["index"]) for detail in interpreter.get_output_details()]
    if found[3].size == 1:
        boxes, classes, scores, count = found
    else:
        scores, boxes, count, classes = found
    return _rows(boxes[0], classes[0], scores[0], np.ravel(count)[0])


def libcoral(interpreter):
    """`GetDetectionResults`: dies unless there are four outputs, of fitting sizes, by Coral's names."""
    assert len(interpreter.get_output_details()) == 4
    signatures = interpreter._get_full_signature_list()
    assert len(signatures) <= 1
    if not signatures:
        return by_place(interpreter)
    outputs = next(iter(signatures.values()))["outputs"]
    assert len(outputs) == 4
    count, scores, classes, boxes = (_values(interpreter, outputs[f"output_{i}"]) for i in range(4))
    assert boxes.size == 4 * classes.size == 4 * scores.size and count.size == 1
    assert {values.dtype for values in (count, scores, classes, boxes)} == {np.dtype(np.float32)}
    found = _rows(np.clip(boxes[0], 0, 1), classes[0], scores[0], count[0])
    return sorted(found, key=lambda row: (-row[1], row[2]))


def frigate(interpreter):
    """Both plugins of Frigate: outputs by place, 20 rows, down to a score of 0.4."""
    boxes, classes, scores, count = (
        _values(interpreter, detail["index"])[0] for detail in interpreter.get_output_details()
    )
    rows = np.zeros((20, 6), np.float32)
    for i in range(int(count)):
        if i == 20 or scores[i] < 0.4:
            break
        rows[i] = (classes[i], scores[i], *boxes[i])
    return [(tuple(row[2:].tolist()), float(row[1]), int(row[0])) for row in rows if row[1] > 0]


def pycoral_labels(text):
    """`dataset.read_label_file`: a number before a space or a colon is the id, else the row is."""
    return dict(_numbered(line, row, r"[:\s]+") for row, line in enumerate(text.splitlines()))


def frigate_labels(text):
    """`load_labels`: the first line decides for all."""
    lines = text.splitlines()
    if not lines[0].split(" ", maxsplit=1)[0].isdigit():
        return {row: line.strip() for row, line in enumerate(lines)}
    pairs = (line.split(" ", maxsplit=1) for line in lines)
    return {int(number): name.strip() for number, name in pairs}


def doods_labels(text):
    """DOODS 2: a number and a name where a line begins so, else lines are counted from 1."""
    return dict(_numbered(line, row) for row, line in enumerate(text.splitlines(), 1))


def _numbered(line, row, between=r"\s+"):
    head, *rest = re.split(between, line.strip(), maxsplit=1)
    return (int(head), rest[0]) if rest and head.isdigit() else (row, line.strip())
