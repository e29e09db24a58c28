"""Compares the throughput of `Detector` and of a bare loop over the interpreter, on the same file and images.

    python benchmarks/detect.py --model=runs/export/detector.tflite --images=cards/val

Prints one JSON object. The bare loop reads an image with OpenCV, resizes it, runs LiteRT and reads the four
outputs; `Detector` does the same with the sampling grid of training, and also checks its input. Ratios are
given in elapsed time and in CPU time, which is more reliable on a busy machine.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter

from tflite_export.detector import footage
from tflite_export.detector.detector import Detector
from tflite_export.tflite import flatbuffer, pixels, suppression

_MODEL = flags.DEFINE_string("model", None, "A .tflite detector.", required=True)
_IMAGES = flags.DEFINE_string("images", None, "A folder of images.", required=True)
_COUNT = flags.DEFINE_integer("count", 100, "Number of images per round.")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Number of alternating rounds; the median is reported.")
_THREADS = flags.DEFINE_integer("threads", 1, "Number of threads of LiteRT.")


def bare(path: str, threads: int):
    """Returns the body of the loop as a user would write it."""
    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    outputs = [each["index"] for each in interpreter.get_output_details()]
    _, height, width, _ = detail["shape"]
    dtype = np.dtype(detail["dtype"])

    def run(name: Path):
        image = cv2.cvtColor(cv2.imread(str(name)), cv2.COLOR_BGR2RGB)
        resized = cv2.resize(image, (int(width), int(height)))
        interpreter.set_tensor(detail["index"], pixels.as_input(resized, dtype))
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return run


def rates(run, names) -> tuple[float, float]:
    """Returns the images of one round per second, and per second of CPU time."""
    start, busy = time.perf_counter(), time.process_time()
    for name in names:
        run(name)
    return len(names) / (time.perf_counter() - start), len(names) / (time.process_time() - busy)


def main(_):
    folder = footage.Folder(_IMAGES.value)
    names = [folder.folder / name for name in folder.names[: _COUNT.value]]
    settings = suppression.of_file(flatbuffer.unpack(Path(_MODEL.value).read_bytes()))
    runs = {
        "bare": bare(_MODEL.value, _THREADS.value),
        "detector": Detector(_MODEL.value, threads=_THREADS.value, score_threshold=settings.score_threshold),
    }
    rounds = {name: [] for name in runs}
    for number in range(_ROUNDS.value + 1):
        for name, run in runs.items():
            found = rates(run, names)
            # The first round is a warm-up.
            if number:
                rounds[name].append(found)
    result = {"model": _MODEL.value, "images": len(names), "rounds": _ROUNDS.value, "threads": _THREADS.value}
    for place, clock in enumerate(("", "cpu_")):
        ratios = [
            one[place] / other[place] for one, other in zip(rounds["detector"], rounds["bare"], strict=True)
        ]
        result |= {
            f"images_per_{clock}s": {
                name: statistics.median(each[place] for each in values) for name, values in rounds.items()
            },
            f"{clock}detector_over_bare": statistics.median(ratios),
            f"{clock}ratio_min": min(ratios),
            f"{clock}ratio_max": max(ratios),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(app.run(main))
