"""COCO evaluation with the Object Detection API's own loop."""

import contextlib
import io
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from mobiledets_tf import compat, files
from mobiledets_tf.compat import tf
from mobiledets_tf.detection import checkpoints, curve, meta_architecture, model_dir, pipeline_config
from mobiledets_tf.errors import CheckFailed, InputError

compat.enable_object_detection()

from object_detection import inputs, model_lib_v2  # noqa: E402
from object_detection.utils import config_util  # noqa: E402

METRICS_FILE = "eval_metrics.json"
CURVE_FILE = "training_curve.png"
_METRICS = {
    "DetectionBoxes_Precision/mAP": "AP",
    "DetectionBoxes_Precision/mAP@.50IOU": "AP50",
    "DetectionBoxes_Precision/mAP@.75IOU": "AP75",
    "DetectionBoxes_Precision/mAP (small)": "APs",
    "DetectionBoxes_Precision/mAP (medium)": "APm",
    "DetectionBoxes_Precision/mAP (large)": "APl",
    "DetectionBoxes_Recall/AR@1": "AR1",
    "DetectionBoxes_Recall/AR@10": "AR10",
    "DetectionBoxes_Recall/AR@100": "AR100",
    "DetectionBoxes_Recall/AR@100 (small)": "ARs",
    "DetectionBoxes_Recall/AR@100 (medium)": "ARm",
    "DetectionBoxes_Recall/AR@100 (large)": "ARl",
    "Loss/total_loss": "loss",
    "Loss/classification_loss": "classification_loss",
    "Loss/localization_loss": "localization_loss",
    "Loss/regularization_loss": "regularization_loss",
}


class Evaluator:
    """Evaluates checkpoints of one model on one data set: one model, one traced network.

    Args:
      config: the pipeline config; its first eval input is read.
      folder: the model folder; TensorBoard summaries go to its `eval/`.
    """

    def __init__(self, config: pipeline_config.PipelineConfig, folder: str | os.PathLike):
        meta_architecture.install()
        self._configs = config_util.create_configs_from_pipeline_proto(config)
        self._configs["eval_input_config"] = self._configs["eval_input_configs"][0]
        self._model = meta_architecture.build_detection_model(self._configs["model"], is_training=False)
        self._network = self._model.network
        # The API traces its step anew for each evaluation; the network in it is traced once.
        traced = tf.function(self._network)
        self._model.attach(traced, self._model.settings, self._model.named_weights)
        self._dataset = inputs.eval_input(
            eval_config=self._configs["eval_config"],
            eval_input_config=self._configs["eval_input_config"],
            model_config=self._configs["model"],
            model=self._model,
        )
        self._batches: int | None = None
        self._writer = tf.summary.create_file_writer(str(Path(folder) / "eval"))

    def evaluate(self, checkpoint: str) -> dict[str, float | int]:
        """Returns `step`, the twelve COCO metrics (AP, AP50, ...) and the losses.

        A metric without any object of its size is -1, as in pycocotools.

        Raises:
          InputError: the checkpoint is damaged or of another network, or there are no images.
          CheckFailed: the evaluation stopped early, or a measure is not finite.
        """
        checkpoints.restore(self._network, checkpoint, self._model.named_weights)
        step = checkpoints.step(checkpoint)
        batches = _Counted(self._dataset, self._batches, f"evaluate step {step}")
        with self._writer.as_default(), contextlib.redirect_stdout(io.StringIO()), compat.quiet():
            raw = model_lib_v2.eager_eval_loop(
                self._model, self._configs, batches, global_step=tf.Variable(step, dtype=tf.int64)
            )
        self._batches = batches.finish()
        self._writer.flush()
        return {"step": step} | _named(raw, step)


class _Counted:
    """A data set with a progress bar that knows whether it was read to its end.

    The API's loop ends silently when a step of it fails, and would report the metrics of the
    images so far.
    """

    def __init__(self, dataset: Iterable, total: int | None, title: str):
        self._dataset, self._total, self._title = dataset, total, title
        self._count, self._done = 0, False

    def __iter__(self) -> Iterator:
        for batch in tqdm(self._dataset, total=self._total, desc=self._title, unit="batch", leave=False):
            yield batch
            self._count += 1
        if not self._count:
            raise InputError("the evaluation data holds no images")
        self._done = True

    def finish(self) -> int:
        if not self._done:
            raise CheckFailed(f"the evaluation failed at batch {self._count + 1}")
        return self._count


def _named(raw: dict, step: int) -> dict[str, float]:
    metrics = {name: float(raw[key]) for key, name in _METRICS.items() if key in raw}
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise CheckFailed(f"{name} is {value} at step {step}")
    return metrics


def evaluate_kept(
    folder: str | os.PathLike, config: pipeline_config.PipelineConfig | None = None
) -> list[dict[str, float | int]]:
    """Evaluates every trained checkpoint kept in a model folder; writes `eval_metrics.json` and a picture.

    Args:
      folder: the model folder.
      config: default: the folder's own. Another one may read other eval data.

    Returns:
      What is written: a list of dictionaries (see `Evaluator.evaluate`), by step.

    Raises:
      InputError: no checkpoint there, or one of another network.
    """
    evaluator = None
    found = [path for path in checkpoints.kept(folder) if checkpoints.step(path)]
    if not found:
        raise InputError(f"model_dir {str(folder)!r} holds no trained checkpoint")
    metrics = []
    for checkpoint in found:
        evaluator = evaluator or Evaluator(config or model_dir.load(folder), folder)
        metrics.append(evaluator.evaluate(checkpoint))
    files.write_json(Path(folder) / METRICS_FILE, metrics)
    curve.draw(metrics, Path(folder) / CURVE_FILE)
    return metrics
