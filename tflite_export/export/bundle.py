"""Writes a deployment folder: the detector, its labels, and the files that each client needs."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from string import Template

from tflite_export.devices import Compilation, edgetpu_compiler
from tflite_export.tflite import labels, model_file, suppression
from tflite_export.tflite.suppression import Suppression

FOLDER, DETECTOR = "bundle", "detector.tflite"
CORAL, LITERT, MEDIAPIPE = "coral_detect.py", "litert_detect.py", "mediapipe_detect.py"
FRIGATE, README = "frigate.yml", "README.md"
# The clients of Coral, MediaPipe and Frigate pass unprocessed uint8 pixels to the model.
INT8_REFUSED = (
    "MediaPipe Tasks and the Task Library reject int8 input, and pycoral and Frigate pass uint8 pixels: "
    "export with --input_type=uint8 for them"
)

_CORAL = '''"""Detects with pycoral: python3 coral_detect.py photo.jpg"""

import sys
from pathlib import Path

from PIL import Image
from pycoral.adapters import common, detect
from pycoral.utils.dataset import read_label_file
from pycoral.utils.edgetpu import make_interpreter

HERE = Path(__file__).parent
labels = read_label_file(str(HERE / "$labels"))
interpreter = make_interpreter(str(HERE / "$model"))
interpreter.allocate_tensors()

image = Image.open(sys.argv[1]).convert("RGB")
common.set_input(interpreter, image.resize(($width, $height)))
interpreter.invoke()
scale = ($width / image.width, $height / image.height)
for found in detect.get_objects(interpreter, $score, scale):
    print(labels.get(found.id, found.id), round(found.score, 2), tuple(found.bbox))
'''

_LITERT = '''"""Detects with LiteRT (pip install ai-edge-litert pillow): python3 litert_detect.py photo.jpg"""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

HERE = Path(__file__).parent
lines = (HERE / "$labels").read_text(encoding="utf-8").splitlines()
labels = {int(number): name.strip() for number, name in (line.split(" ", 1) for line in lines)}
interpreter = Interpreter(str(HERE / "$model"), num_threads=$threads)
interpreter.allocate_tensors()

image = Image.open(sys.argv[1]).convert("RGB")
pixels = np.asarray(image.resize(($width, $height)))[np.newaxis]
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], $as_input)
interpreter.invoke()
outputs = [interpreter.get_tensor(detail["index"])[0] for detail in interpreter.get_output_details()]
boxes, classes, scores, count = outputs
for i in range(int(count)):
    top, left, bottom, right = boxes[i] * (image.height, image.width, image.height, image.width)
    print(labels.get(int(classes[i])), round(float(scores[i]), 2), (left, top, right, bottom))
'''
_AS_INPUT = {
    "UINT8": "pixels",
    "INT8": "(pixels ^ 128).view(np.int8)",
    "FLOAT32": "pixels.astype(np.float32) / 127.5 - 1",
}

_MEDIAPIPE = '''"""Detects with MediaPipe (pip install mediapipe): python3 mediapipe_detect.py photo.jpg"""

import sys
from pathlib import Path

import mediapipe as mp
from mediapipe.tasks import python
from mediapipe.tasks.python import vision

base = python.BaseOptions(model_asset_path=str(Path(__file__).parent / "$model"))
with vision.ObjectDetector.create_from_options(vision.ObjectDetectorOptions(base)) as detector:
    for found in detector.detect(mp.Image.create_from_file(sys.argv[1])).detections:
        print(found.categories[0].category_name, round(found.categories[0].score, 2), found.bounding_box)
'''

_FRIGATE = """# Part of a Frigate configuration. Copy $model and $labels to Frigate's /config folder.
detectors:
$detector
model:
  path: /config/$model
  labelmap_path: /config/$labels
  width: $width
  height: $height
  input_tensor: nhwc
  input_pixel_format: rgb
  model_type: ssd
objects:
  track:
$objects
"""
_ON_CORAL = "  coral:\n    type: edgetpu\n    device: usb"
_ON_CPU = "  cpu:\n    type: cpu\n    num_threads: $threads"

_README = """# Detector
$names classes; input $width x $height pixels, $dtype; at most $count boxes per image with scores from $score;
$nms suppression.

| client | file here | requirements |
|---|---|---|
| pycoral, libcoral, Viseron, Scrypted | $coral | uint8 input; outputs `output_0` (count) to `output_3` (boxes) in the signature, or no signature and the order boxes, classes, scores, count (the file has both); an int8 network; compiled by `edgetpu_compiler` to run on the Edge TPU |
| LiteRT, tf.lite | `$litert` | the outputs by position (boxes, classes, scores, count) or by the names above; classes count from 0 |
| MediaPipe Tasks | $mediapipe | metadata and labels in the file (included); uint8 or float input |
| Frigate | $frigate | path, width, height, labels with numbers, `nhwc`, `rgb`, `model_type: ssd`, uint8 input; it drops scores below 0.4 and boxes after the first 20 |
| OpenCV dnn | `detector.tflite` | uint8 or float input; pixels 0..255 for uint8; class ids count from 1; it suppresses each class separately |

Labels: `$labels` has a number and a name per line, which Frigate, pycoral and DOODS read alike; `$plain` has
one name per line.
$threads_note$compiler_note"""  # noqa: E501


def write(
    folder: Path,
    model: Path,
    names: Sequence[str],
    settings: Suppression,
    compilation: Compilation | None = None,
) -> list[str]:
    """Writes the deployment bundle of a detector with post-processing.

    Args:
      folder: the folder to create; it must not exist yet.
      model: the exported .tflite file.
      names: class names, in class order.
      settings: suppression settings of the exported file.
      compilation: result of the Edge TPU compiler; None runs the compiler.

    Returns:
      The names of the files written.
    """
    folder.mkdir()
    shutil.copyfile(model, folder / DETECTOR)
    (folder / labels.PLAIN).write_text(labels.plain(names), encoding="utf-8")
    (folder / labels.INDEXED).write_text(labels.indexed(names), encoding="utf-8")
    if compilation is None:
        compilation = edgetpu_compiler.compile_model(folder / DETECTOR, folder)
    compiled = Path(compilation.output).name if compilation.output else None
    file = model_file.read(model)
    values = _values(file, names, settings, compiled)
    for name, text in _texts(file.inputs[0].dtype, compiled, compilation, settings, values).items():
        (folder / name).write_text(text, encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


def _values(
    file: model_file.ModelFile, names: Sequence[str], settings: Suppression, compiled: str | None
) -> dict[str, object]:
    _, height, width, _ = file.inputs[0].shape
    known = [name for name in names if name != labels.NO_NAME]
    # Names are quoted as JSON, which is valid YAML, because a class name may contain any character.
    objects = "\n".join(f"    - {json.dumps(name, ensure_ascii=False)}" for name in known)
    return {
        "labels": labels.INDEXED,
        "plain": labels.PLAIN,
        "width": width,
        "height": height,
        "names": len(known),
        "score": max(settings.score_threshold, 0.3),
        "objects": objects,
        "threads": 1 if settings.nms == "regular" else 3,
        "model": compiled or DETECTOR,
    }


def _texts(
    dtype: str,
    compiled: str | None,
    compilation: Compilation,
    settings: Suppression,
    values: dict[str, object],
) -> dict[str, str]:
    plain = values | {"model": DETECTOR, "as_input": _AS_INPUT[dtype]}
    texts = {LITERT: Template(_LITERT).substitute(plain)}
    if dtype == "UINT8":
        texts[CORAL] = Template(_CORAL).substitute(values)
    if dtype != "INT8":
        texts[MEDIAPIPE] = Template(_MEDIAPIPE).substitute(plain)
    if dtype == "UINT8":
        detector = _ON_CORAL if compiled else Template(_ON_CPU).substitute(values)
        texts[FRIGATE] = Template(_FRIGATE).substitute(values, detector=detector)
    shown = {name: f"`{name}`" if name in texts else "-" for name in (CORAL, MEDIAPIPE, FRIGATE)}
    notes = {"threads_note": "", "compiler_note": ""}
    if dtype == "INT8":
        notes["threads_note"] += f"\n{INT8_REFUSED}.\n"
    if settings.nms == "regular":
        notes["threads_note"] += f"\n{suppression.THREADS_NOTE[0].upper()}{suppression.THREADS_NOTE[1:]}.\n"
    if not compiled:
        command = f"mobiledets-compile --model={DETECTOR}"
        notes["compiler_note"] = (
            f"\nThe file is not compiled for the Edge TPU: {compilation.reason}. Where the compiler is "
            f"installed, `{command}` compiles it and keeps labels and signature.\n"
        )
    texts[README] = Template(_README).substitute(
        values | {"score": f"{settings.score_threshold:g}"},
        dtype=dtype.lower(),
        count=settings.max_detections,
        nms=settings.nms,
        coral=shown[CORAL],
        litert=LITERT,
        mediapipe=shown[MEDIAPIPE],
        frigate=shown[FRIGATE],
        **notes,
    )
    return texts
