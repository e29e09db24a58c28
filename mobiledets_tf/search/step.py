"""One step of the shared weights, and the quality of one network: the two traced functions."""

import numpy as np

from mobiledets_tf import compat
from mobiledets_tf.architecture import ANCHORS_PER_LOCATION, load
from mobiledets_tf.compat import keras, tf
from mobiledets_tf.data.coco_metrics import coco_metrics
from mobiledets_tf.detection import meta_architecture
from mobiledets_tf.models import postprocess
from mobiledets_tf.models.supernet import Supernet
from mobiledets_tf.search import data

compat.enable_object_detection()

from object_detection import model_lib  # noqa: E402

MOMENTUM = 0.9
CLIP_NORM = 10.0


class _Bound:
    """The supernet as the network of a detection model: one network's slices at a time."""

    def __init__(self, supernet: Supernet):
        self.supernet = supernet
        self.weights = ()

    def bind(self, slices, decisions):
        self._slices, self._decisions = slices, decisions

    def __call__(self, images, training=None):
        return self.supernet(images, self._slices, self._decisions)


class SharedStep:
    """Trains and evaluates networks of a supernet.

    Args:
      supernet: the shared weights.
      model_config: the `model` part of a pipeline config, for losses, matcher and L2.
    """

    def __init__(self, supernet: Supernet, model_config):
        self.supernet = supernet
        self._bound = _Bound(supernet)
        self.model = meta_architecture.build_detection_model(model_config, True, self._bound, {})
        self.optimizer = keras.optimizers.SGD(0.0, momentum=MOMENTUM, global_clipnorm=CLIP_NORM)
        variables = [variable for op in supernet.ops.values() for variable in op.weights]
        # Built before the trace: variables made inside one would need a second trace.
        self.optimizer.build(variables)
        assert ANCHORS_PER_LOCATION == supernet.space.anchors_per_location
        self._anchors = postprocess.anchors(load("edgetpu"), supernet.image_size)

    @staticmethod
    def preprocess(images):
        """Pixels to [-1, 1], in the form that the API's transform asks for; the images fill the canvas."""
        return (2.0 / 255.0) * images - 1.0, tf.zeros([tf.shape(images)[0], 3], tf.int32)

    @tf.function(autograph=False)
    def train(self, images, labels, decisions):
        """Updates the weights of a network; returns the scalar losses by name.

        Args:
          images: float32 [batch, height, width, 3] in [-1, 1].
          labels: padded tensors of `data.batches`.
          decisions: int32 [decisions]; op decisions may be mixes.
        """
        sizes = self.supernet.sizes(decisions)
        slices = self.supernet.slices(sizes)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(slices)
            losses = self._losses(images, labels, slices, decisions)
            total = tf.add_n(list(losses.values()))
        gradients = tape.gradient(total, slices, unconnected_gradients="zero")
        finite = tf.math.is_finite(total)
        tf.cond(finite, lambda: self._apply(gradients, sizes), lambda: tf.constant(False))
        return losses | {"total_loss": total}

    def _losses(self, images, labels, slices, decisions):
        self._bound.bind(slices, decisions)
        model_lib.provide_groundtruth(self.model, model_lib.unstack_batch(labels, False))
        predictions = self.model.predict(images, None)
        losses = {name.split("/")[-1]: loss for name, loss in self.model.loss(predictions, None).items()}
        return losses | {"regularization_loss": self.model.settings.l2 * self.supernet.l2(slices)}

    def _apply(self, gradients, sizes):
        self.optimizer.apply_gradients(self.supernet.gradients(gradients, sizes))
        return tf.constant(True)

    @tf.function(autograph=False)
    def _detect(self, images, decisions):
        slices = self.supernet.slices(self.supernet.sizes(decisions))
        raw_boxes, class_logits = self.supernet(images, slices, decisions)
        return postprocess.detections(raw_boxes, class_logits, self._anchors)

    def quality(self, images, labels, decisions: np.ndarray, metric: str) -> float:
        """AP or AP50 of a network on a batch, from 0 to 1; 0 where the batch has no box."""
        truth = data.ground_truth(labels, self.supernet.image_size, self.supernet.num_classes)
        if not truth["annotations"]:
            return 0.0
        boxes, scores, classes, counts = (t.numpy() for t in self._detect(images, tf.constant(decisions)))
        height, width = self.supernet.image_size
        detections = [
            {
                "image_id": image + 1,
                "category_id": int(classes[image, row]),
                "bbox": [
                    float(left * width),
                    float(top * height),
                    float((right - left) * width),
                    float((bottom - top) * height),
                ],
                "score": float(scores[image, row]),
            }
            for image, count in enumerate(counts)
            for row in range(count)
            for top, left, bottom, right in [boxes[image, row]]
        ]
        return max(0.0, coco_metrics(truth, detections)[metric])
