"""Evaluation during training: keeps the checkpoint with the best AP and can stop training early."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mobiledets_tf.detection import evaluate, model_dir
from mobiledets_tf.weights import checkpoints

_PREFIX = "best-"


class Watch:
    """Evaluates each checkpoint of a training run as soon as it is written.

    All its state is in `eval_metrics.json`, so a resumed run has it, too.

    Args:
      folder: the model folder.
      early_stop: number of consecutive evaluations without a better AP after which training ends;
        None disables early stopping.
      stop: called after each batch of an evaluation; raises an exception to end the evaluation.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        early_stop: int | None = None,
        stop: Callable[[], None] = lambda: None,
    ):
        self._folder, self._early_stop, self._stop = Path(folder), early_stop, stop
        self._evaluator: evaluate.Evaluator | None = None
        self.last: evaluate.Evaluation | None = None

    def __call__(self, checkpoint: str) -> bool:
        """Evaluates a checkpoint unless it was evaluated before, and keeps a copy if it is the best.

        Returns:
          Whether training should end.
        """
        step = checkpoints.step(checkpoint)
        rows = [row for row in evaluate.read_metrics(self._folder) if row["step"] <= step]
        if step not in {row["step"] for row in rows}:
            if self._evaluator is None:
                self._evaluator = evaluate.Evaluator(model_dir.load(self._folder), self._folder, self._stop)
            self.last = self._evaluator.evaluate(checkpoint)
            rows.append(self.last.metrics)
            evaluate.write_metrics(self._folder, rows)
        best = max(rows, key=lambda row: row["AP"])
        if best["step"] == step:
            keep(checkpoint, step)
        return self._early_stop is not None and len(rows) - rows.index(best) > self._early_stop


def keep(checkpoint: str, step: int) -> str:
    """Copies a checkpoint to `best-STEP` beside it, deletes the previous best and returns the new prefix."""
    folder = Path(checkpoint).parent
    target = folder / f"{_PREFIX}{step}"
    # The index is copied last, because a checkpoint counts as present only once it has its index.
    parts = sorted(folder.glob(f"{Path(checkpoint).name}.*"), key=lambda path: path.suffix == ".index")
    for part in parts:
        copy = folder / f".{target.name}{part.suffix}.part"
        shutil.copyfile(part, copy)
        os.replace(copy, folder / f"{target.name}{part.name.removeprefix(Path(checkpoint).name)}")
    for old in find(folder):
        if old != str(target):
            # The index is deleted first, for the same reason.
            for part in sorted(folder.glob(f"{Path(old).name}.*"), key=lambda path: path.suffix != ".index"):
                part.unlink()
    return str(target)


def find(folder: str | os.PathLike) -> list[str]:
    """Returns the prefixes of the best checkpoints in a model folder: one or none."""
    found = sorted(Path(folder).glob(f"{_PREFIX}*.index"))
    return [str(path).removesuffix(".index") for path in found]
