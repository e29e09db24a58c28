"""Files of each input type as other programs read them: by our account of their steps, or installed."""

import json
import os
import subprocess

import numpy as np
import pytest

from tflite_export.detector.file_detector import PostprocessedFile
from tflite_export.tflite import metadata, pixels, runtime, suppression
from tflite_export.tflite.suppression import Suppression

SIZE, LABELS = 96, ["circle", "square", "star"]  # of the detector in conftest.py
KINDS = {"uint8": ("int8", "uint8"), "int8": ("int8", "int8"), "float": ("float", "float")}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def file(kind, tflite, tmp_path_factory):
    """A file as export ships it, with a threshold that a network of random weights reaches."""
    path = tmp_path_factory.mktemp("clients") / f"{kind}.tflite"
    data = suppression.changed(tflite(*KINDS[kind]).read_bytes(), Suppression(25, 0.6, 0.05, "fast"))
    path.write_bytes(metadata.add(data, LABELS, "edgetpu", 0.05, "1"))
    return path


@pytest.fixture(scope="module")
def picture(pictures):
    return pixels.resize(pictures[0], (SIZE, SIZE))


@pytest.fixture(scope="module")
def ours(file, picture):
    """(box, score, class id from 0) of our own reader."""
    reader = PostprocessedFile(file)
    found = reader.run(pixels.as_input(picture, reader.input_dtype))
    assert len(found.scores) > 5
    return list(zip(found.boxes.tolist(), found.scores.tolist(), (found.classes - 1).tolist(), strict=True))


def same(found, expected, box_tolerance=1e-6, score_tolerance=1e-6):
    assert [row[2] for row in found] == [row[2] for row in expected]
    np.testing.assert_allclose([row[1] for row in found], [row[1] for row in expected], atol=score_tolerance)
    boxes = np.clip([row[0] for row in found], 0, 1)
    np.testing.assert_allclose(boxes, [row[0] for row in expected], atol=box_tolerance)


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("client", ["pycoral", "libcoral", "by_place", "frigate"])
def test_clients_read_what_we_read_on_any_number_of_threads(file, picture, ours, clients, client, threads):
    interpreter = runtime.open_model(file, threads)
    detail = interpreter.get_input_details()[0]
    interpreter.set_tensor(detail["index"], pixels.as_input(picture, np.dtype(detail["dtype"])))
    interpreter.invoke()
    expected = {
        "libcoral": sorted(ours, key=lambda row: (-row[1], row[2])),
        "frigate": [row for row in ours if row[1] >= 0.4][:20],
    }.get(client, ours)
    same(getattr(clients, client)(interpreter), expected)


def test_our_names_of_the_signature(file, picture, ours):
    runner = runtime.open_model(file).get_signature_runner("serving_default")
    dtype = np.dtype(runner.get_input_details()["image"]["dtype"])
    found = runner(image=pixels.as_input(picture, dtype))
    assert sorted(found) == ["output_0", "output_1", "output_2", "output_3"]
    assert int(found["output_0"][0]) == len(ours)
    np.testing.assert_allclose(found["output_1"][0][: len(ours)], [row[1] for row in ours])


def test_tensorflow_s_own_interpreter(file, picture, ours, clients):
    from mobiledets_tf.compat import tf

    interpreter = tf.lite.Interpreter(str(file), num_threads=4)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    interpreter.set_tensor(detail["index"], pixels.as_input(picture, np.dtype(detail["dtype"])))
    interpreter.invoke()
    # Its float kernels are others.
    same(clients.pycoral(interpreter), ours, 1e-4, 1e-4)


def test_litert_compiled_model(file, picture, ours):
    module = pytest.importorskip("ai_edge_litert.compiled_model")
    model = module.CompiledModel.from_file(str(file))
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs[0].write(pixels.as_input(picture, PostprocessedFile(file).input_dtype))
    model.run_by_index(0, inputs, outputs)
    names = model.get_signature_by_index(0)["outputs"]
    assert names == ["output_3", "output_2", "output_1", "output_0"]
    sizes = {"output_0": 1, "output_1": 25, "output_2": 25, "output_3": 100}
    values = {name: buffer.read(sizes[name], np.float32) for name, buffer in zip(names, outputs, strict=True)}
    count = int(values["output_0"][0])
    boxes = values["output_3"].reshape(25, 4)
    rows = zip(boxes[:count], values["output_1"][:count], values["output_2"][:count].astype(int), strict=True)
    same(list(rows), ours)


def test_opencv_finds_the_best_box(file, kind, picture, ours):
    """It suppresses each class on its own, whatever the file says."""
    import cv2

    if kind == "int8":
        with pytest.raises(cv2.error):
            net = cv2.dnn.readNetFromTFLite(str(file))
            net.setInput(picture.astype(np.float32).transpose(2, 0, 1)[np.newaxis])
            net.forward()
        return
    net = cv2.dnn.readNetFromTFLite(str(file))
    pixel = picture if kind == "uint8" else picture.astype(np.float32) / 127.5 - 1
    net.setInput(pixel.astype(np.float32).transpose(2, 0, 1)[np.newaxis])
    rows = net.forward().reshape(-1, 7)
    rows = rows[rows[:, 2] > 0]
    best = rows[np.argmax(rows[:, 2])]
    box = (best[4], best[3], best[6], best[5])
    found = [row for row in ours if row[2] == int(best[1]) - 1 and abs(row[1] - best[2]) < 0.05]
    assert found, (best, ours[:3])
    np.testing.assert_allclose(np.clip(box, 0, 1), found[0][0], atol=0.05)


_MEDIAPIPE = """
import json, sys
import mediapipe as mp, numpy as np
from mediapipe.tasks import python
from mediapipe.tasks.python import vision
base = python.BaseOptions(model_asset_path=sys.argv[1])
with vision.ObjectDetector.create_from_options(vision.ObjectDetectorOptions(base)) as detector:
    image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.load(sys.argv[2]))
    boxes = [(found.bounding_box, found.categories[0]) for found in detector.detect(image).detections]
print(json.dumps([((b.origin_y, b.origin_x, b.origin_y + b.height, b.origin_x + b.width), c.score,
                   c.category_name) for b, c in boxes]))
"""


def test_mediapipe(file, kind, picture, ours, tmp_path):
    """It gives whole pixels and refuses int8 input. It needs other versions than ours: its own Python."""
    python = os.environ.get("MOBILEDETS_MEDIAPIPE_PYTHON") or pytest.skip("no $MOBILEDETS_MEDIAPIPE_PYTHON")
    np.save(tmp_path / "picture.npy", picture)
    command = [python, "-c", _MEDIAPIPE, str(file), str(tmp_path / "picture.npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    if kind == "int8":
        assert done.returncode and not done.stdout
        return
    rows = json.loads(done.stdout.splitlines()[-1])
    found = [(np.array(box) / SIZE, score, LABELS.index(name)) for box, score, name in rows]
    same(found, ours, 3 / SIZE)
