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
      num_train, num_val: number of images in each split.
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
    """Options of reading and checking data: the flags of `mobiledets-data --mode=check`.

    Attributes:
      images: a data folder (`instances_SPLIT.json` beside `SPLIT/`, or any other format), or the images of
        one split if `annotations` is given.
      annotations: COCO file of one split, or a file or folder in another format.
      format: one of `formats.NAMES`; None detects it.
      exif_turn: what boxes on images with an EXIF orientation refer to: `upright`, `stored`, or `auto` to
        decide by sizes and boxes.
    """

    images: str
    annotations: str | None = None
    format: str | None = option(None, choices=formats.NAMES)
    exif_turn: str = option("auto", choices=EXIF_TURNS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions(DataOptions):
    """Options of converting data: the flags of `mobiledets-data --mode=convert`.

    Attributes:
      output_dir: folder for the TFRecord shards, the label map and `dataset.json`.
      num_shards: number of shards per split, at most one per image; None writes one per 250 images.
      val_share: share of a single split that becomes `val`; None uses 0.2 if a data folder has only one
        split, and otherwise leaves the splits as they are.
    """

    output_dir: str
    num_shards: int | None = option(None, low=1, high=99_999)
    val_share: float | None = option(None, low=0.0, high=1.0)
