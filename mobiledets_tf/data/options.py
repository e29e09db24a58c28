"""Options of reading, checking and converting images with boxes."""

import dataclasses

from mobiledets_tf.data import formats
from mobiledets_tf.options import Options, option

EXIF_TURNS = ("auto", "upright", "stored")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleOptions(Options):
    """Options of the built-in sample set: the flags of `mobiledets-data --mode=sample`.

    Attributes:
      output_dir: folder to write; new or empty.
      num_train, num_val: images of each split.
      image_size: side of the square images, in pixels.
      seed: seed of the images.
    """

    output_dir: str
    num_train: int = option(1000, low=1)
    num_val: int = option(200, low=1)
    image_size: int = option(160, low=64, high=2048)
    seed: int = option(0, low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """What to read: flags of `mobiledets-data --mode=check`.

    Attributes:
      images: a data folder (`instances_SPLIT.json` beside `SPLIT/`, or any other format), or the images of
        one split if `annotations` is given.
      annotations: COCO file of one split, or a file or folder of another format.
      format: one of `formats.NAMES`; None finds out.
      exif_turn: what boxes on images with an EXIF orientation refer to: `upright`, `stored`, or `auto` to
        decide by sizes and boxes.
    """

    images: str
    annotations: str | None = None
    format: str | None = option(None, choices=formats.NAMES)
    exif_turn: str = option("auto", choices=EXIF_TURNS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions(DataOptions):
    """What to convert: the flags of `mobiledets-data --mode=convert`.

    Attributes:
      output_dir: folder of the TFRecord shards, the label map and `dataset.json`.
      num_shards: shards of a split, at most one for each image; None writes one for 250 images.
      val_share: share of a single split that becomes `val`; None divides the only split of a data folder
        with 0.2, and leaves others as they are.
    """

    output_dir: str
    num_shards: int | None = option(None, low=1, high=99_999)
    val_share: float | None = option(None, low=0.0, high=1.0)
