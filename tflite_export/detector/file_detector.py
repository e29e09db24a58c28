"""Runs a .tflite detector with a post-process op, from any source, with LiteRT and without TensorFlow.

The outputs are identified by the op that writes them: it writes boxes, classes, scores and their count in
this order, whatever the file's names for them and however it lists them.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from mobiledets_tf.errors import InputError
from tflite_export.tflite import model_file, runtime
from tflite_export.tflite.pixels import quantize


@dataclasses.dataclass(frozen=True)
class Detections:
    """The detections in one image, in descending order of score.

    Attributes:
      boxes: [n, 4] float32 (ymin, xmin, ymax, xmax) as fractions of the image, in [0, 1].
      scores: [n] float32.
      classes: [n] int, counted from 1 as in label maps.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def first(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, count: np.ndarray, first_class: int = 1
) -> Detections:
    """Converts batched outputs to the detections of the first image, without the padding.

    `first_class` is the number that the outputs use for the first class.
    """
    kept = slice(int(count.flat[0]))
    # For so few numbers this is twice as fast as np.clip.
    inside = np.minimum(np.maximum(boxes[0][kept], 0), 1)
    return Detections(inside, scores[0][kept], classes[0][kept].astype(int) + (1 - first_class))


class PostprocessedFile:
    """A detector whose last operation is `TFLite_Detection_PostProcess`.

    Args:
      model: a path, or the bytes of a file.
      threads: number of threads of the runtime.
      delegates: loaded delegates of an accelerator.
      name: name of the file in messages; default: the path.

    Raises:
      InputError: the file cannot be run, has no post-processing, or its input is not one RGB image.
    """

    def __init__(
        self, model: str | os.PathLike | bytes, threads: int = 1, delegates: Sequence = (), name: str = ""
    ):
        name = name or (os.fspath(model) if not isinstance(model, bytes) else "model")
        content = model_file.parse(model, name) if isinstance(model, bytes) else model_file.read(model)
        found = [op for op in content.operators if op.name == model_file.CUSTOM_OP]
        if len(found) != 1 or len(found[0].outputs) != 4:
            raise InputError(
                f"model {name!r} has no {model_file.CUSTOM_OP} operation; a detector with "
                "post-processing (--postprocess=tflite) is required"
            )
        self._outputs = [tensor.index for tensor in found[0].outputs]
        self._interpreter = runtime.open_model(model, threads, delegates=delegates, name=name)
        inputs = self._interpreter.get_input_details()
        shape = tuple(map(int, inputs[0]["shape"])) if len(inputs) == 1 else ()
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            given = [list(map(int, each["shape"])) for each in inputs]
            raise InputError(
                f"model {name!r} has inputs of shape {given}; a detector has one, [1, height, width, 3]"
            )
        self._input = inputs[0]
        self.input_size: tuple[int, int] = shape[1:3]
        self.input_dtype: np.dtype = np.dtype(self._input["dtype"])

    def __call__(self, image: np.ndarray) -> Detections:
        """Detects in an image [1, height, width, 3] float32 in [-1, 1]; quantises it if the file requires."""
        if self.input_dtype != np.float32:
            image = quantize(image, self.input_dtype, *self._input["quantization"])
        return self.run(image)

    def run(self, values: np.ndarray) -> Detections:
        """Detects in an image that already has the file's input dtype and shape."""
        self._interpreter.set_tensor(self._input["index"], values)
        self._interpreter.invoke()
        boxes, classes, scores, count = map(self._interpreter.get_tensor, self._outputs)
        # The op counts classes from 0 without the background.
        return first(boxes, scores, classes, count, first_class=0)
