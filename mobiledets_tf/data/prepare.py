"""Reads and checks images with boxes in any format, and divides a single split where necessary."""

from collections.abc import Sequence

from mobiledets_tf.data import check, formats, train_val_split
from mobiledets_tf.data.check import Checked
from mobiledets_tf.data.options import ConvertOptions, DataOptions
from mobiledets_tf.errors import InputError


def read(options: DataOptions) -> tuple[str, list[Checked]]:
    """Reads all splits and checks them, including every image.

    Returns:
      The name of the format, and each split with its faults and warnings.

    Raises:
      InputError: there is nothing to read, or an annotation file is not one.
    """
    name, splits = formats.read(options.images, options.annotations, options.format)
    return name, check.check(splits, options.exif_turn)


def divided(checked: Sequence[Checked], options: ConvertOptions) -> list[Checked]:
    """Returns the splits, after dividing a single one into `train` and `val` where necessary.

    A single split is divided if `val_share` is given or if it is the only one of a data folder.

    Raises:
      InputError: a share is given and there are several splits, or there are fewer than two images.
    """
    share = options.val_share
    if share is not None and len(checked) != 1:
        raise InputError(f"--val_share={share}: the folder already has {len(checked)} splits")
    named = options.annotations is not None and checked[0].split.content is None
    if share is None and (len(checked) != 1 or named):
        return list(checked)
    return train_val_split.divide(checked[0], train_val_split.DEFAULT_SHARE if share is None else share)
