"""Options of an import of weights, checked without loading TensorFlow."""

import dataclasses
from typing import TYPE_CHECKING

from mobiledets_tf import architecture as architectures
from mobiledets_tf.data import records
from mobiledets_tf.errors import InputError
from mobiledets_tf.options import Options, option
from mobiledets_tf.weights import zoo

if TYPE_CHECKING:  # This module imports TensorFlow.
    from mobiledets_tf.weights.importing import Wanted


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions(Options):
    """Options of an import of weights: the flags of `mobiledets-import`.

    Attributes:
      weights: TF1 checkpoint (prefix, one of its files, or folder), a .tflite file, a folder of this
        project, or `zoo:cpu`, `zoo:edgetpu`, `zoo:dsp` (downloaded).
      output_dir: folder to write; new or empty.
      architecture: the network that gets the weights: a published name or an architecture file; by
        default the network of the weights. Weights of another network are remapped.
      calibration_data: images from which batch normalisation is recovered: a converted folder, or a
        pattern of TFRecord files. Without them, weights of a .tflite file are for inference only.
      weights_cache: folder for downloaded weights.
      num_classes: number of classes of the wanted head; by default that of the weights.
      image_size: side of the square input, in pixels; by default 320, or that of the .tflite file.
      depth_multiplier: depth multiplier of the weights.
    """

    weights: str
    output_dir: str
    architecture: str | None = None
    calibration_data: str | None = None
    weights_cache: str | None = None
    num_classes: int | None = option(None, low=1)
    image_size: int | None = None
    depth_multiplier: float = 1.0

    def wanted(self) -> "Wanted":
        """Returns the detector that the weights are imported for; loads TensorFlow after the checks.

        Raises:
          InputError: an option is out of range, or names a file that does not exist.
        """
        network = None if self.architecture is None else architectures.load(self.architecture)
        size = None if self.image_size is None else architectures.image_hw(self.image_size)
        if not 0 < self.depth_multiplier <= 100:
            raise InputError(f"--depth_multiplier={self.depth_multiplier}; allowed: above 0, at most 100")
        zoo.check_exists("weights", self.weights)
        if self.calibration_data is not None:
            records.resolve(self.calibration_data, "train")

        from mobiledets_tf.weights import importing

        return importing.Wanted(network, self.num_classes, size, self.depth_multiplier)
