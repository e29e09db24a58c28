"""The order of a training's images and their augmentation depend on seed and position alone."""

import collections

import numpy as np
import pytest

from mobiledets_tf.compat import tf
from mobiledets_tf.data.record_index import DamagedRecord, RecordIndex
from mobiledets_tf.detection import pipeline_config
from mobiledets_tf.detection.ordered_input import Records, file_order, training_order
from mobiledets_tf.detection.pipeline_config import Overrides

BATCH = 4


@pytest.fixture(scope="module")
def config(tiny):
    return pipeline_config.generate(
        Overrides(
            "edgetpu",
            2,
            (96, 96),
            0.25,
            BATCH,
            train_files=[str(train_file(tiny))],
            eval_files=[str(tiny / "val-00000-of-00001.tfrecord")],
            label_map=str(tiny / "label_map.pbtxt"),
            random_flip=True,
            random_crop=True,
        )
    )


def train_file(tiny):
    return tiny / "train-00000-of-00001.tfrecord"


class Model:
    """What the input asks a detection model for."""

    def preprocess(self, images):
        return 2.0 / 255.0 * images - 1.0, tf.constant([[96, 96, 3]])


def batches(config, records, start, count, context=None):
    from object_detection import inputs

    with training_order(records, 5, start):
        dataset = inputs.train_input(
            config.train_config, config.train_input_reader, config.model, Model(), input_context=context
        )
    return [features["image"].numpy() for features, _ in dataset.take(count)]


@pytest.mark.slow
def test_a_training_that_goes_on_sees_what_it_would_have_seen(config, tiny):
    records = Records([str(train_file(tiny))])
    whole = batches(config, records, 0, 9)
    rest = batches(config, Records([str(train_file(tiny))]), 6, 3)
    np.testing.assert_array_equal(np.stack(whole[6:]), np.stack(rest))
    assert not np.array_equal(whole[0], whole[4]), "the second epoch has another order"


@pytest.mark.slow
def test_two_workers_share_each_batch(config, tiny):
    records = Records([str(train_file(tiny))])
    whole = batches(config, records, 2, 2)
    parts = [batches(config, records, 2, 2, tf.distribute.InputContext(2, worker, 2)) for worker in (0, 1)]
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(batch, np.concatenate([part[step] for part in parts]))


def test_each_epoch_shows_every_record_once(tiny):
    records = Records([str(train_file(tiny))])
    for epoch in range(3):
        seen = collections.Counter(records.at(16 * epoch + place, seed=1) for place in range(16))
        assert seen == collections.Counter(range(16))
    assert records.image_ids(0, 4, seed=1) == [str(records.at(place, 1)) for place in range(4)]


def test_evaluation_reads_every_record_once_in_order(config, tiny):
    from object_detection import inputs

    records = Records(list(config.eval_input_reader[0].tf_record_input_reader.input_path))
    with file_order(records):
        dataset = inputs.eval_input(config.eval_config, config.eval_input_reader[0], config.model, Model())
    assert sum(len(features["image"]) for features, _ in dataset) == len(records) == 5


def test_the_index_reads_what_tensorflow_reads(tiny):
    files = [str(train_file(tiny)), str(tiny / "val-00000-of-00001.tfrecord")]
    index = RecordIndex(files)
    given = list(tf.data.TFRecordDataset(files).as_numpy_iterator())
    assert [index.read(number) for number in range(len(index))] == given


def test_a_damaged_record_has_an_address_and_is_skipped_up_to_a_cap(tiny, tmp_path, monkeypatch):
    data = bytearray(train_file(tiny).read_bytes())
    offsets = [offset for _, offset in RecordIndex([str(train_file(tiny))])._places]
    data[offsets[3] + 100] ^= 4
    damaged = tmp_path / "damaged.tfrecord"
    damaged.write_bytes(data)
    with pytest.raises(DamagedRecord, match=f"damaged.tfrecord' is damaged at byte offset {offsets[3]}"):
        Records([str(damaged)]).read(3)
    said = []
    monkeypatch.setattr("mobiledets_tf.detection.ordered_input.tqdm.write", said.append)
    records = Records([str(damaged)], max_damaged=1)
    assert records.read(3) == records.read(4) == records.read(3)
    assert len(said) == 1 and f"offset {offsets[3]}" in said[0]
    damaged.write_bytes(data[: offsets[5] + 30])
    with pytest.raises(DamagedRecord, match=f"offset {offsets[5]}: a record of .* extends beyond the file"):
        RecordIndex([str(damaged)])


def test_cached_examples_hold_the_same_picture(tiny):
    plain, cached = (Records([str(train_file(tiny))], cache_side=side) for side in (None, 96))
    for number in range(3):
        pictures = [
            tf.io.decode_image(
                tf.train.Example.FromString(each.read(number))
                .features.feature["image/encoded"]
                .bytes_list.value[0]
            )
            .numpy()
            .astype(int)
            for each in (plain, cached)
        ]
        assert pictures[0].shape == pictures[1].shape
        # Two JPEG decoders round differently.
        assert np.abs(pictures[0] - pictures[1]).mean() < 2
    assert cached.read(0) is cached.read(0)
