"""Weights that a training starts from, fitted to the network of its pipeline config."""

import functools

from mobiledets_tf.data import preprocessing, records
from mobiledets_tf.detection import meta_architecture, network_settings
from mobiledets_tf.detection.pipeline_config import PipelineConfig
from mobiledets_tf.weights import fitting, readers
from mobiledets_tf.weights.imported_weights import Account, Target


def read(path: str, config: PipelineConfig, label_map: str, seed: int) -> Account:
    """Reads weights of any origin and fits them to the network of a config.

    Args:
      path: folder or checkpoint of this project, TF1 checkpoint, or .tflite file.
      config: the complete config of the training.
      label_map: path of its label map; the class predictors of renamed classes are newly initialised.
      seed: seed of newly initialised weights, and of the sample of training images from which missing
        batch normalisation is recovered.

    Raises:
      InputError: there are no weights, or they are damaged or belong to an unknown network.
    """
    settings = network_settings.read(config.model.ssd)
    target = Target(
        settings.architecture, settings.num_classes, settings.image_size, settings.depth_multiplier
    )
    source = readers.read_for(path, target, records.read_label_map(label_map))
    drawn = None
    if fitting.needs_images(source, target):
        files = list(config.train_input_reader.tf_record_input_reader.input_path)
        drawn = preprocessing.batches(files, settings.image_size, seed=seed)
    build = functools.partial(meta_architecture.build_network, settings)
    return fitting.fit(source, target, drawn, build, seed)
