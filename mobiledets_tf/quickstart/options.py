"""Options of a quickstart."""

import dataclasses

from mobiledets_tf.options import Options, option
from tflite_export.devices import TIMING


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuickstartOptions(Options):
    """Options of a quickstart: the flags of `mobiledets-quickstart`.

    Attributes:
      work_dir: folder for all outputs.
      data: data folder in any format that mobiledets-data reads; None draws the built-in sample set.
      device: `madds`, or a device of `tflite_export.devices.TIMING` whose latency model is made first.
      seed: seed of data, search and training.
    """

    work_dir: str = "quickstart"
    data: str | None = None
    device: str = option("madds", choices=("madds", *TIMING))
    seed: int = option(0, low=0, high=2**31 - 1)
