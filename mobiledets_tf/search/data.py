"""Images of a search: the Object Detection API's decoder and transforms, split by image id."""

from collections.abc import Callable, Sequence

from mobiledets_tf import compat
from mobiledets_tf.compat import tf
from mobiledets_tf.errors import InputError

compat.enable_object_detection()

from object_detection import inputs  # noqa: E402
from object_detection.builders import image_resizer_builder  # noqa: E402
from object_detection.core import standard_fields as fields  # noqa: E402
from object_detection.data_decoders import tf_example_decoder  # noqa: E402

Labels = fields.InputDataFields
# One image in ten is held out for the reward (MobileDets: 10 % of the training set).
HOLDOUT_BUCKETS = 10
MAX_BOXES = 100
LABEL_KEYS = (
    Labels.num_groundtruth_boxes,
    Labels.groundtruth_boxes,
    Labels.groundtruth_classes,
    Labels.groundtruth_weights,
    Labels.groundtruth_is_crowd,
)


def batches(
    files: Sequence[str],
    label_map: str,
    model_config,
    preprocess: Callable,
    batch_size: int,
    held_out: bool,
    seed: int,
) -> tf.data.Dataset:
    """Endless shuffled batches of one side of the split.

    Args:
      files: TFRecord shards of the training set.
      label_map: beside them.
      model_config: the `model` part of a pipeline config: image size and classes.
      preprocess: of the detection model; maps pixels to [-1, 1].
      batch_size: images.
      held_out: the images whose id falls in one of ten hash buckets, or all others.
      seed: of the order.

    Returns:
      (images float32 [batch, h, w, 3], labels) with labels as the API's padded tensors.

    Raises:
      InputError: no image is on this side.
    """
    decoder = tf_example_decoder.TfExampleDecoder(label_map_proto_file=label_map)

    def is_mine(example):
        bucket = tf.strings.to_hash_bucket_fast(example[Labels.source_id], HOLDOUT_BUCKETS)
        return tf.equal(tf.equal(bucket, 0), held_out)

    examples = tf.data.Dataset.from_tensor_slices(list(files))
    examples = examples.interleave(tf.data.TFRecordDataset, cycle_length=4)
    examples = examples.map(decoder.decode, num_parallel_calls=2).filter(is_mine)
    if next(iter(examples.take(1)), None) is None:
        side = "held out for the reward" if held_out else "left for training"
        raise InputError(f"no image of {len(files)} TFRecord files is {side}; more images are needed")
    examples = examples.shuffle(512, seed=seed, reshuffle_each_iteration=True).repeat()
    transform = _transform(model_config, preprocess)
    return examples.map(transform, num_parallel_calls=2).batch(batch_size, drop_remainder=True).prefetch(2)


def _transform(model_config, preprocess: Callable) -> Callable:
    resizer = image_resizer_builder.build(model_config.ssd.image_resizer)
    shape = model_config.ssd.image_resizer.fixed_shape_resizer
    num_classes = model_config.ssd.num_classes

    def run(example):
        example = inputs.transform_input_data(example, preprocess, resizer, num_classes)
        example = inputs.pad_input_data_to_static_shapes(
            example, MAX_BOXES, num_classes, [shape.height, shape.width]
        )
        return example[Labels.image], {key: example[key] for key in LABEL_KEYS if key in example}

    return run


def ground_truth(labels: dict, image_size: tuple[int, int], num_classes: int) -> dict:
    """A batch's boxes as a COCO dictionary; images are numbered from 1, sizes are those of the input."""
    height, width = image_size
    arrays = {key: tensor.numpy() for key, tensor in labels.items()}
    annotations = []
    counts = arrays[Labels.num_groundtruth_boxes]
    for image, count in enumerate(counts):
        for row in range(count):
            top, left, bottom, right = (float(v) for v in arrays[Labels.groundtruth_boxes][image, row])
            box = [left * width, top * height, (right - left) * width, (bottom - top) * height]
            crowd = arrays.get(Labels.groundtruth_is_crowd)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 1,
                    "category_id": int(arrays[Labels.groundtruth_classes][image, row].argmax()) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd[image, row]) if crowd is not None else 0,
                }
            )
    return {
        "images": [{"id": i + 1, "height": height, "width": width} for i in range(len(counts))],
        "annotations": annotations,
        "categories": [{"id": c, "name": str(c)} for c in range(1, num_classes + 1)],
    }
