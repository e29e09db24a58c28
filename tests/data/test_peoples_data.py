"""Data as people have it: turned, grey, CMYK pictures; one split only; rare and tiny things."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from mobiledets_tf.cli import data as command
from mobiledets_tf.data import check, coco, image_files, statistics, train_val_split
from mobiledets_tf.errors import InputError


def picture(width: int = 40, height: int = 24) -> Image.Image:
    """Red on the left, blue on the right, a green stripe on top."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 200
    pixels[: height // 4] = (0, 200, 0)
    return Image.fromarray(pixels)


def stored(orientation: int, kind: str = "PNG") -> bytes:
    """A file whose upright form is `picture()`."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = picture() if orientation == 1 else picture().transpose(turns[orientation])
    exif = image.getexif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_put_upright(orientation):
    data = stored(orientation)
    assert np.array_equal(np.asarray(image_files.decode(data, (40, 24))), np.asarray(picture()))
    jpeg = Image.open(io.BytesIO(image_files.as_jpeg(stored(orientation, "JPEG"), (40, 24))))
    assert jpeg.size == (40, 24) and jpeg.getexif().get(0x0112, 1) == 1
    assert np.abs(np.asarray(jpeg).astype(int) - np.asarray(picture())).mean() < 12


def test_boxes_on_the_stored_pixels_keep_them():
    kept = image_files.decode(stored(6), (24, 40))
    assert np.array_equal(np.asarray(kept), np.asarray(picture().transpose(Image.Transpose.ROTATE_90)))
    jpeg = Image.open(io.BytesIO(image_files.as_jpeg(stored(6, "JPEG"), (24, 40))))
    assert jpeg.size == (24, 40) and jpeg.getexif().get(0x0112, 1) == 1
    with pytest.raises(image_files.PictureError, match="is 24x40, but the annotations say 24x41"):
        image_files.decode(stored(6), (24, 41))


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG")])
def test_other_pixels_become_rgb(mode, kind):
    buffer = io.BytesIO()
    picture().convert(mode).save(buffer, kind)
    image = Image.open(io.BytesIO(image_files.as_jpeg(buffer.getvalue(), (40, 24))))
    assert (image.mode, image.format, image.size) == ("RGB", "JPEG", (40, 24))


def _checked(data, split: str = "train"):
    return next(each for each in check.check(coco.find_splits(data)) if each.split.name == split)


def test_one_split_becomes_two_that_share_nothing(data):
    whole = _checked(data)
    train, val = train_val_split.divide(whole, 0.25)
    sides = [{image.id for image in part.dataset.images} for part in (train, val)]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == {image.id for image in whole.dataset.images}
    assert len(sides[1]) == round(0.25 * len(whole.dataset.images))
    assert len(train.dataset.annotations) + len(val.dataset.annotations) == len(whole.dataset.annotations)
    for part, ids in zip((train, val), sides, strict=True):
        assert {box.image_id for box in part.dataset.annotations} <= ids
    assert [part.dataset for part in train_val_split.divide(whole, 0.25)] == [train.dataset, val.dataset]


def test_a_folder_with_one_split_is_converted_to_two(data, tmp_path, capsys):
    (data / "instances_val.json").unlink()
    output = tmp_path / "records"
    flags = ["mobiledets-data", "--mode=convert", f"--images={data}", f"--output_dir={output}"]
    assert command.run(flags) == 0
    assert "one split was given; it was divided into" in capsys.readouterr().out
    assert sorted(path.name for path in output.glob("*.tfrecord")) == [
        "train-00000-of-00001.tfrecord",
        "val-00000-of-00001.tfrecord",
    ]


def test_two_splits_and_a_share_contradict_each_other(data, tmp_path, capsys):
    flags = ["mobiledets-data", "--mode=convert", f"--images={data}", f"--output_dir={tmp_path / 'x'}"]
    assert command.run([*flags, "--val_share=0.5"]) == 2
    assert "already has 2 splits" in capsys.readouterr().err


def test_one_image_cannot_be_divided(data):
    whole = _checked(data)
    first = dataclasses.replace(whole.dataset, images=whole.dataset.images[:1])
    one = dataclasses.replace(whole, dataset=first)
    with pytest.raises(InputError, match="two are needed"):
        train_val_split.divide(one)


def _box(number, image_id, category_id, width, height, crowd=False):
    return coco.Annotation(number, image_id, category_id, (0.0, 0.0, width, height), width * height, crowd)


def test_statistics_by_hand():
    dataset = coco.Dataset(
        images=(coco.Image(1, "a.jpg", 640, 320), coco.Image(2, "b.jpg", 320, 320)),
        annotations=(
            _box(1, 1, 1, 640.0, 320.0),  # the whole image: 320 px of the input
            _box(2, 1, 1, 20.0, 10.0),  # 10 px
            _box(3, 2, 1, 100.0, 100.0),  # 100 px
            _box(4, 2, 2, 16.0, 16.0),  # 16 px: not below
            _box(5, 2, 2, 1.0, 1.0, crowd=True),
        ),
        categories=(coco.Category(1, "cat"), coco.Category(2, "dog"), coco.Category(3, "eel")),
    )
    measured = statistics.measure(dataset, 320)
    assert measured.boxes == {"cat": 3, "dog": 1, "eel": 0}
    assert measured.images == {"cat": 2, "dog": 1, "eel": 0}
    assert measured.small == {"cat": 1, "dog": 0, "eel": 0}
    assert measured.sides[1] == pytest.approx(58.0)
    warnings = measured.warnings()
    assert warnings[0].startswith("1 of 4 boxes (25%) are smaller than 16 px at input size 320")
    assert "class 'eel' has few boxes: 0" in warnings


def test_check_shows_them(data, capsys):
    assert command.run(["mobiledets-data", "--mode=check", f"--images={data}"]) == 0
    output = capsys.readouterr().out
    assert "boxes  share  images" in output and "box side at 320x320: median" in output
