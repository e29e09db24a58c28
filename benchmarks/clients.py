"""Measures AP of exported files as other programs read them, on images with COCO annotations.

    python benchmarks/clients.py --files=exports/uint8.tflite --files=exports/float.tflite \\
        --images=cards/val --annotations=cards/instances_val.json

Prints one JSON object that maps each file and client to its AP. For clients that are not installed, the steps
in tests/tflite_export/clients.py are used. MediaPipe requires other package versions than this project, so
--mediapipe_python names an interpreter in which it is installed.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags

from tflite_export.detector import footage
from tflite_export.detector.coco_results import Truth, to_coco
from tflite_export.detector.file_detector import Detections, PostprocessedFile
from tflite_export.tflite import labels, metadata, pixels, runtime

_FILES = flags.DEFINE_multi_string("files", None, "Exported detectors.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "A folder of images.", required=True)
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "COCO annotations of the images.", required=True)
_THREADS = flags.DEFINE_multi_integer("threads", [1, 2, 3, 4, 8], "Thread counts to run each client with.")
_MEDIAPIPE = flags.DEFINE_string("mediapipe_python", None, "A Python interpreter with mediapipe installed.")
_TENSORFLOW = flags.DEFINE_bool("tensorflow", True, "Whether TensorFlow's own interpreter is also run.")

_MEDIAPIPE_PROGRAM = """
import json, sys
import mediapipe as mp
from mediapipe.tasks import python
from mediapipe.tasks.python import vision
base = python.BaseOptions(model_asset_path=sys.argv[1])
with vision.ObjectDetector.create_from_options(vision.ObjectDetectorOptions(base)) as detector:
    for path in sys.stdin.read().splitlines():
        rows = []
        for found in detector.detect(mp.Image.create_from_file(path)).detections:
            box, best = found.bounding_box, found.categories[0]
            rows.append((box.origin_y, box.origin_x, box.origin_y + box.height, box.origin_x + box.width,
                         best.score, best.category_name))
        print("ROW", json.dumps(rows))
"""


def _clients():
    path = Path(__file__).parent.parent / "tests" / "tflite_export" / "clients.py"
    spec = importlib.util.spec_from_file_location("clients", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _detections(rows) -> Detections:
    """Converts rows of (box, score, class id from 0) to detections."""
    boxes, scores, classes = zip(*rows, strict=True) if rows else ((), (), ())
    boxes = np.clip(np.array(boxes, np.float32).reshape(-1, 4), 0, 1)
    return Detections(boxes, np.array(scores, np.float32), np.array(classes, int) + 1)


def _by_interpreter(interpreter, read):
    detail = interpreter.get_input_details()[0]
    size, dtype = tuple(detail["shape"][1:3]), np.dtype(detail["dtype"])

    def run(image):
        resized = cv2.resize(image, (int(size[1]), int(size[0])))
        interpreter.set_tensor(detail["index"], pixels.as_input(resized, dtype))
        interpreter.invoke()
        return _detections(read(interpreter))

    return run


def _ours(path):
    file = PostprocessedFile(path)
    return lambda image: file.run(pixels.as_input(pixels.resize(image, file.input_size), file.input_dtype))


def _opencv(path):
    net, (height, width) = cv2.dnn.readNetFromTFLite(path), PostprocessedFile(path).input_size

    def run(image):
        resized = cv2.resize(image, (width, height)).astype(np.float32)
        if PostprocessedFile(path).input_dtype == np.float32:
            resized = resized / 127.5 - 1
        net.setInput(resized.transpose(2, 0, 1)[np.newaxis])
        rows = [row for row in net.forward().reshape(-1, 7) if row[2] > 0]
        return _detections([((r[4], r[3], r[6], r[5]), r[2], int(r[1]) - 1) for r in rows])

    return run


def _compiled_model(path):
    from ai_edge_litert.compiled_model import CompiledModel

    model, file = CompiledModel.from_file(path), PostprocessedFile(path)
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    count = runtime.open_model(path).get_output_details()[0]["shape"][1]

    def run(image):
        inputs[0].write(
            np.ascontiguousarray(pixels.as_input(cv2.resize(image, file.input_size[::-1]), file.input_dtype))
        )
        model.run_by_index(0, inputs, outputs)
        sizes = (4 * count, count, count, 1)
        boxes, classes, scores, number = (
            buffer.read(int(size), np.float32) for buffer, size in zip(outputs, sizes, strict=True)
        )
        kept = int(number[0])
        rows = zip(boxes.reshape(-1, 4)[:kept], scores[:kept], classes[:kept].astype(int), strict=True)
        return _detections(list(rows))

    return run


def _tensorflow(path, threads, read):
    from mobiledets_tf.compat import tf

    interpreter = tf.lite.Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    return _by_interpreter(interpreter, read)


def _mediapipe(path, names, folder):
    done = subprocess.run(
        [_MEDIAPIPE.value, "-c", _MEDIAPIPE_PROGRAM, path],
        capture_output=True,
        text=True,
        input="\n".join(str(folder / name) for name in names),
    )
    rows = [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("ROW ")]
    if len(rows) != len(names):
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        raise RuntimeError(lines[-1] if lines else "it exited early")
    return dict(zip(names, rows, strict=True))


def main(_):
    truth, folder, steps = Truth.load(_ANNOTATIONS.value), Path(_IMAGES.value), _clients()
    entries = truth.images()
    images = {name: footage.read_image(folder / name, (e.width, e.height)) for name, e in entries.items()}
    result = {}
    for path in _FILES.value:
        names = labels.parse(metadata.labels_of(Path(path).read_bytes()), path)
        ids = truth.category_ids(names, len(names))

        def score(run, ids=ids):
            results = []
            for name, image in images.items():
                entry = entries[name]
                size = {"id": entry.id, "width": entry.width, "height": entry.height}
                results += to_coco(run(image), size, ids)
            return round(truth.score(results).metrics["AP"], 4)

        ways = {
            "ours": lambda path=path: _ours(path),
            "opencv": lambda path=path: _opencv(path),
            "litert_compiled_model": lambda path=path: _compiled_model(path),
        }
        for threads in _THREADS.value:
            for client in ("pycoral", "libcoral", "by_place", "frigate"):
                ways[f"{client}, {threads} threads"] = lambda p=path, t=threads, c=client: _by_interpreter(
                    runtime.open_model(p, t), getattr(steps, c)
                )
            if _TENSORFLOW.value:
                ways[f"tf.lite, {threads} threads"] = lambda p=path, t=threads: _tensorflow(
                    p, t, steps.by_place
                )
        table = {}
        for client, make in ways.items():
            try:
                table[client] = score(make())
            except Exception as error:  # That a client rejects a file is also a result.
                table[client] = f"refused: {' '.join(str(error).split())[:160]}"
            print(path, client, table[client], file=sys.stderr)
        if _MEDIAPIPE.value:
            table["mediapipe"] = _of_mediapipe(path, entries, folder, names, images, score)
        result[path] = table
    print(json.dumps(result, indent=1))


def _of_mediapipe(path, entries, folder, names, images, score):
    try:
        found = _mediapipe(path, list(entries), folder)
    except RuntimeError as error:
        return f"refused: {' '.join(str(error).split())[:160]}"
    rows = iter(found.values())

    def run(image):
        size = np.array(image.shape[:2] * 2, float)
        return _detections([(np.array(r[:4]) / size, r[4], names.index(r[5])) for r in next(rows)])

    return score(run)


if __name__ == "__main__":
    app.run(main)
