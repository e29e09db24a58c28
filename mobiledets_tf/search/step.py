"""Traced functions of a search: a training step of the shared weights, and the quality of a network."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mobiledets_tf import compat
from mobiledets_tf.architecture import ANCHORS_PER_LOCATION, load
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.data.coco_metrics import coco_metrics, coco_results
from mobiledets_tf.data.scaling import to_network_range
from mobiledets_tf.detection import meta_architecture, pipeline_config
from mobiledets_tf.models import postprocess
from mobiledets_tf.models.supernet import Supernet
from mobiledets_tf.replicas import Replicas
from mobiledets_tf.search import input_pipeline
from mobiledets_tf.search.input_pipeline import Batch
from mobiledets_tf.search.optimizer import SharedMomentum
from mobiledets_tf.search_space import SearchSpace

compat.enable_object_detection()

from object_detection import model_lib  # noqa: E402

Losses = dict[str, float]


class _Bound:
    """Presents the supernet to a detection model as one network; `bind` selects which one."""

    def __init__(self, supernet: Supernet):
        self.supernet = supernet
        self.weights = ()

    def bind(self, weights: Any, decisions: tf.Tensor) -> None:
        self._weights, self._decisions = weights, decisions

    def __call__(self, images: tf.Tensor, training: bool | None = None) -> Any:
        return self.supernet(images, self._weights, self._decisions)


class SharedStep:
    """Trains and evaluates networks of a supernet; each replica has its own network and batch.

    Args:
      make_supernet: returns a new supernet; called inside the strategy's scope.
      model_config: the `model` part of a pipeline config, which defines losses, matcher and L2.
      update: `lazy` or `dense`; see `search.optimizer`.
      strategy: a tf.distribute strategy; by default one device is used.
    """

    def __init__(
        self,
        make_supernet: Callable[[], Supernet],
        model_config: Any,
        update: str = "lazy",
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self.strategy = strategy or tf.distribute.get_strategy()
        self.replicas = Replicas(self.strategy)
        with self.strategy.scope():
            self.supernet = make_supernet()
            self.optimizer = SharedMomentum(self.supernet, update)
        self._bound = _Bound(self.supernet)
        self.model = meta_architecture.build_detection_model(model_config, True, self._bound, {})
        assert ANCHORS_PER_LOCATION == self.supernet.space.anchors_per_location
        self._anchors = postprocess.anchors(load("edgetpu"), self.supernet.image_size)

    @staticmethod
    def preprocess(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps pixels from [0, 255] to [-1, 1].

        Returns:
          (the images, each image's shape [images, 3]); the API's transform scales boxes by the shapes.
        """
        shape = tf.shape(images)
        return to_network_range(images), tf.tile(shape[tf.newaxis, 1:], [shape[0], 1])

    def train(self, batches: Sequence[Batch], decisions: np.ndarray, learning_rate: float) -> list[Losses]:
        """Updates the shared weights with one network and one batch per replica.

        Args:
          batches: one batch for each replica of this worker; see `data.Batch`.
          decisions: int32 [local replicas, decisions]; an op decision may be the mix of all options.
          learning_rate: learning rate of the shared weights.

        Returns:
          For each local replica its losses by name, and `applied`: 1, or 0 if a loss or gradient
          of any replica was not finite, in which case nothing was changed.
        """
        rate = tf.constant(learning_rate, tf.float32)
        losses = self._train(
            self.replicas.spread([b.images for b in batches]),
            self.replicas.spread([b.labels for b in batches]),
            self.replicas.spread([tf.constant(row, tf.int32) for row in decisions]),
            rate,
        )
        local = {name: self.strategy.experimental_local_results(value) for name, value in losses.items()}
        return [{name: float(local[name][i]) for name in local} for i in range(len(batches))]

    @tf.function(autograph=False)
    def _train(
        self, images: tf.Tensor, labels: dict[str, tf.Tensor], decisions: tf.Tensor, learning_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        return self.strategy.run(self._train_replica, args=(images, labels, decisions, learning_rate))

    def _train_replica(
        self, images: tf.Tensor, labels: dict[str, tf.Tensor], decisions: tf.Tensor, learning_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        extents = self.supernet.extents(decisions)
        taken = self.supernet.take(extents)
        rows = [mine.rows for mine in taken]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(rows)
            losses = self._losses(images, labels, rows, extents, decisions)
            total = tf.add_n(list(losses.values()))
        gradients = tape.gradient(total, rows, unconnected_gradients="zero")
        finite = tf.math.is_finite(total)
        applied = self.optimizer.apply(gradients, taken, finite, learning_rate)
        return losses | {"total_loss": total, "applied": tf.cast(applied, tf.float32)}

    def _losses(
        self, images: tf.Tensor, labels: dict[str, tf.Tensor], rows: Any, extents: Any, decisions: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        self._bound.bind(self.supernet.weights(rows, extents), decisions)
        model_lib.provide_groundtruth(self.model, model_lib.unstack_batch(labels, False))
        predictions = self.model.predict(images, None)
        losses = {name.split("/")[-1]: loss for name, loss in self.model.loss(predictions, None).items()}
        return losses | {"regularization_loss": self.model.settings.l2 * self.supernet.l2(rows)}

    def measure(self, batches: Sequence[Batch], networks: np.ndarray, metric: str) -> np.ndarray:
        """Measures the qualities of networks on the same images; the networks are split over the replicas.

        Args:
          batches: batches of held-out images.
          networks: int32 [networks, decisions].
          metric: as in `quality`.

        Returns:
          The quality of each network on each batch, float64 [networks, batches].
        """
        count = self.strategy.num_replicas_in_sync
        local = self.replicas.local
        found = []
        for first in range(0, len(networks), count):
            # In the last round, surplus replicas measure the last network again.
            mine = [networks[min(first + replica, len(networks) - 1)] for replica in local]
            values = [self.quality([batch] * len(mine), mine, metric) for batch in batches]
            found.append(self.replicas.share(np.array(values).T))
        return np.concatenate(found)[: len(networks)]

    def quality(
        self, batches: Sequence[Batch], decisions: Sequence[np.ndarray] | np.ndarray, metric: str
    ) -> np.ndarray:
        """Measures the quality of each local replica's network on its own batch; higher is better.

        Args:
          batches: one batch for each replica of this worker.
          decisions: decision vector of each replica's network, int32 [decisions].
          metric: one of `reward.QUALITIES`. `loss` is minus the sum of the class and the box loss; the
            others range from 0 to 1.

        Returns:
          float64 [local replicas]; NaN for a batch without boxes, which yields no reward; minus infinity
          where a loss is not finite.
        """
        args = [
            self.replicas.spread(values)
            for values in (
                [b.images for b in batches],
                [b.labels for b in batches],
                [tf.constant(row, tf.int32) for row in decisions],
            )
        ]
        empty = [not np.any(b.labels[input_pipeline.Labels.num_groundtruth_boxes]) for b in batches]
        if metric == "loss":
            losses = np.array([float(x) for x in self._local(self._loss(*args))])
            found = np.where(np.isfinite(losses), -losses, -np.inf)
        else:
            outputs = [self._local(part) for part in self._detect(args[0], args[2])]
            found = np.array(
                [
                    0.0 if nothing else self._average_precision(batch, mine, metric)
                    for nothing, batch, mine in zip(empty, batches, zip(*outputs, strict=True), strict=True)
                ]
            )
        return np.where(empty, np.nan, found)

    def _local(self, value: Any) -> Sequence:
        return self.strategy.experimental_local_results(value)

    def _average_precision(self, batch: Batch, outputs: Sequence[tf.Tensor], metric: str) -> float:
        size = self.supernet.image_size
        truth = input_pipeline.ground_truth(batch.labels, size, self.supernet.num_classes)
        detections = _as_coco([tensor.numpy() for tensor in outputs], size)
        return max(0.0, coco_metrics(truth, detections)[metric])

    @tf.function(autograph=False)
    def _loss(self, images: tf.Tensor, labels: dict[str, tf.Tensor], decisions: tf.Tensor) -> tf.Tensor:
        return self.strategy.run(self._loss_of_replica, args=(images, labels, decisions))

    def _loss_of_replica(
        self, images: tf.Tensor, labels: dict[str, tf.Tensor], decisions: tf.Tensor
    ) -> tf.Tensor:
        extents = self.supernet.extents(decisions)
        rows = [mine.rows for mine in self.supernet.take(extents)]
        losses = self._losses(images, labels, rows, extents, decisions)
        return losses["classification_loss"] + losses["localization_loss"]

    @tf.function(autograph=False)
    def _detect(self, images: tf.Tensor, decisions: tf.Tensor) -> Any:
        return self.strategy.run(self._detect_of_replica, args=(images, decisions))

    def _detect_of_replica(self, images: tf.Tensor, decisions: tf.Tensor) -> Any:
        raw_boxes, class_logits = self.supernet(images, self.supernet.weights_of(decisions), decisions)
        return postprocess.detections(raw_boxes, class_logits, self._anchors)


def _as_coco(outputs: Sequence[np.ndarray], image_size: tuple[int, int]) -> list[dict]:
    """Converts the detections of a batch to COCO results; images are numbered from 1."""
    boxes, scores, classes, counts = outputs
    height, width = image_size
    top, left, bottom, right = np.moveaxis(boxes, -1, 0)
    pixels = np.stack([left * width, top * height, (right - left) * width, (bottom - top) * height], -1)
    found = []
    for image, count in enumerate(counts):
        where, ids, worth = (values[image, :count] for values in (pixels, classes.astype(int), scores))
        found += coco_results(image + 1, where, ids, worth)
    return found


def build_step(
    space: SearchSpace,
    image_size: tuple[int, int],
    num_classes: int,
    execution: str = "sliced",
    weight_update: str = "lazy",
    strategy: tf.distribute.Strategy | None = None,
) -> tuple[SharedStep, Any]:
    """Builds the supernet with its training step.

    Args:
      space: the search space.
      image_size: (height, width) in pixels.
      num_classes: number of classes without the background.
      execution: `sliced` or `masked`; see `models.execution`.
      weight_update: `lazy` or `dense`; see `search.optimizer`.
      strategy: a tf.distribute strategy; by default one device is used.

    Returns:
      (the training step, the `model` part of the pipeline config that it uses).
    """
    config = pipeline_config.generate(
        pipeline_config.Overrides(architecture="edgetpu", num_classes=num_classes, image_size=image_size)
    )
    # The traced graph contains every option of every layer, and optimising it costs more time than a short
    # search gains: the first step takes 80 s instead of 26 s, later steps take equally long.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

    def make_supernet() -> Supernet:
        return Supernet(space, num_classes, image_size, execution=execution)

    return SharedStep(make_supernet, config.model, weight_update, strategy), config.model


def mean_quality(values: np.ndarray) -> np.ndarray:
    """Returns the mean quality of each network over the batches that contain boxes; [networks]."""
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=1)


def set_seed(seed: int) -> None:
    """Seeds weight initialisation.

    The seed is offset by 1: with a global seed of 0, TensorFlow checks in Python whether the op seed is 0
    too, which is not possible for the seed of an epoch, a tensor.
    """
    keras.utils.set_random_seed(seed + 1)
