"""`mobiledets-data`: writes the built-in sample set, checks data folders, converts them to TFRecords."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from mobiledets_tf.cli import app
from mobiledets_tf.errors import CheckFailed, InputError

if TYPE_CHECKING:
    import numpy as np

    from mobiledets_tf.data.check import Checked
    from mobiledets_tf.data.options import DataOptions
    from mobiledets_tf.data.statistics import Statistics

FLAGS = flags.FlagValues()

flags.DEFINE_enum(
    "mode",
    None,
    ["sample", "check", "convert"],
    "Task to run: draw the sample set, check a data folder, or convert it to TFRecords.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "images",
    None,
    "Data folder: COCO (instances_SPLIT.json beside SPLIT/) or another format that --format names; "
    "with --annotations, the folder of one split's images.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "annotations",
    None,
    "Annotations of one split: a COCO file named instances_SPLIT.json, or a file or folder of another"
    " format.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "format",
    None,
    ["coco", "roboflow", "tfrecord", "yolo", "voc", "cvat", "labelme", "label_studio"],
    "check, convert: annotation format; default: detected from the files.",
    flag_values=FLAGS,
)
flags.DEFINE_string("output_dir", None, "sample, convert: output folder.", flag_values=FLAGS)
flags.DEFINE_integer(
    "num_shards",
    None,
    "convert: TFRecord files per split, at most one per image; default: one per 250 images.",
    lower_bound=1,
    upper_bound=99999,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "num_train", 1000, "sample: number of training images.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer("num_val", 200, "sample: number of validation images.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer(
    "image_size",
    None,
    "sample: side of the square images, in pixels (default 160); check: input size of the network, in"
    " pixels (default 320).",
    lower_bound=64,
    upper_bound=2048,
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "val_share",
    None,
    "convert: fraction of a single split that becomes the val split; default: 0.2 for a data folder "
    "that has only one split.",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "exif_turn",
    "auto",
    ["auto", "upright", "stored"],
    "check, convert: orientation that the boxes refer to, for images with an EXIF orientation tag: "
    "upright (tag applied), stored (tag ignored), or auto (decided by sizes and boxes; upright if "
    "both fit).",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "report",
    None,
    "check: also write the results to this HTML page, for example check.html.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_enum(
    "augmentation",
    [],
    ["flip", "color", "scale", "crop"],
    "check: augmentation step of which the --report page shows samples; flip, color, scale and crop "
    "stand for --random_flip etc. of mobiledets-train.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "seed", 0, "sample: random seed; each seed draws different images.", lower_bound=0, flag_values=FLAGS
)
flags.mark_flag_as_required("mode", flag_values=FLAGS)

# Number of augmented images on the page that --report writes.
_SAMPLES = 12

DESCRIPTION = """
Draws a sample set, checks images with boxes, or converts them to TFRecords. COCO, Pascal VOC, YOLO,
TFRecords of other tools, CVAT, LabelMe, Label Studio and Roboflow are detected automatically.

  mobiledets-data --mode=sample --output_dir=sample
  mobiledets-data --mode=check --images=sample --report=check.html
  mobiledets-data --mode=convert --images=sample --output_dir=records
  mobiledets-data --mode=convert --images=train --annotations=instances_train.json --output_dir=records

A check prints one line per fault and exits with 1 if there are any; otherwise it prints the class balance
and the box sizes.
"""


def main() -> None:
    """Runs one mode; prints faults and one line of counts per split to stdout."""
    {"sample": _sample, "check": _check, "convert": _convert}[FLAGS.mode]()


def _sample() -> None:
    # Imported inside the function, as in all functions below, to report an invalid flag before slow imports.
    from mobiledets_tf import api

    output_dir = app.needed(FLAGS, "output_dir")
    size = FLAGS.image_size or 160
    api.draw_sample(app.options(FLAGS, api.SampleOptions, image_size=size))
    print(
        f"{output_dir}: {FLAGS.num_train} train and {FLAGS.num_val} val images, "
        f"{size}x{size}, seed {FLAGS.seed}"
    )


def _check() -> None:
    from mobiledets_tf.data import statistics

    if FLAGS.augmentation and not FLAGS.report:
        raise InputError("--augmentation requires --report: the samples are shown on that page")
    from mobiledets_tf.data.options import DataOptions

    for each in _checked(app.options(FLAGS, DataOptions, images=app.needed(FLAGS, "images"))):
        measured = statistics.measure(each.dataset, FLAGS.image_size or 320)
        print("\n".join([f"{each.split.name}:", *measured.lines()]))
        _warn([each], measured)


def _report(checked: list) -> None:
    """Writes the --report page about the checked splits."""
    from mobiledets_tf.data import check_page

    size = FLAGS.image_size or 320
    augmented: dict[str, Sequence[np.ndarray]] = {}
    if FLAGS.augmentation and not any(each.faults for each in checked):
        augmented[f"After {', '.join(FLAGS.augmentation)}"] = _augmented(checked[0], size)
    check_page.write(FLAGS.report, checked, size, augmented)
    print(f"report: {FLAGS.report}")


def _augmented(checked: "Checked", side: int) -> "list[np.ndarray]":
    """Returns samples of one split, augmented by the steps of --augmentation."""
    import numpy as np

    from mobiledets_tf.data import check_page, classes, image_files
    from mobiledets_tf.detection import augmentation

    names = [category.name for category in checked.dataset.categories]
    if "flip" in FLAGS.augmentation and (found := classes.told_by_side(names)):
        print(f"warning: flip shows mirror images; {classes.mirror_warning(found, len(names))}")
    by_image, images, boxes = checked.dataset.by_image(), [], []
    for image in check_page.chosen(checked)[:_SAMPLES]:
        data, size = checked.split.read_picture(image.file_name), (image.width, image.height)
        images.append(np.asarray(image_files.decode(data, size, image.as_stored).convert("RGB")))
        corners = [(y, x, y + h, x + w) for x, y, w, h in (box.bbox for box in by_image[image.id])]
        boxes.append(np.reshape(corners, (-1, 4)) / ([image.height, image.width] * 2))
    return augmentation.samples(images, boxes, FLAGS.augmentation, side, FLAGS.seed)


def _convert() -> None:
    from mobiledets_tf.data import convert, prepare, statistics
    from mobiledets_tf.data.options import ConvertOptions

    output_dir = app.needed(FLAGS, "output_dir")
    options = app.options(FLAGS, ConvertOptions, images=app.needed(FLAGS, "images"))
    checked = _checked(options)
    parts = prepare.divided(checked, options)
    if len(parts) > len(checked):
        sizes = " and ".join(f"{len(part.dataset.images)} {part.split.name}" for part in parts)
        print(f"one split was given; it was divided into {sizes} images")
    for each in parts:
        _warn([each], statistics.measure(each.dataset, FLAGS.image_size or 320))
    dataset = convert.convert(parts, output_dir, FLAGS.num_shards)
    shards = sum(len(split["shards"]) for split in dataset["splits"].values())
    print(f"{output_dir}: {shards} shards, splits {', '.join(dataset['splits'])}")


def _warn(parts: list, measured: "Statistics | None" = None) -> None:
    """Prints one line for each warning about a split; a warning is not a fault."""
    for each in parts:
        for warning in (*each.warnings, *(measured.warnings() if measured else ())):
            print(f"{each.split.name}: warning: {warning}")


def _checked(options: "DataOptions") -> list:
    """Reads and checks the splits that the options name; prints faults and counts.

    Raises:
      CheckFailed: a split has faults.
    """
    from mobiledets_tf.data import prepare

    name, checked = prepare.read(options)
    if name != "coco" or FLAGS.format:
        print(f"{FLAGS.images}: format {name}, splits {', '.join(each.split.name for each in checked)}")
    for each in checked:
        for fault in each.faults:
            print(fault)
    for each in checked:
        print(each.summary())
    if FLAGS.mode == "check" and FLAGS.report:
        _report(checked)
    faults = sum(len(each.faults) for each in checked)
    if faults:
        _warn(checked)
        raise CheckFailed(f"{faults} faults in {FLAGS.images!r}")
    return checked


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
