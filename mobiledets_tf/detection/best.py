"""Evaluation along a training: the best checkpoint by AP is kept, and a training may stop early."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from mobiledets_tf.detection import checkpoints, evaluate, model_dir

_PREFIX = "best-"


class Watch:
    """Evaluates each checkpoint of a training when it is there.

    Everything it knows is in `eval_metrics.json`, so that a training that goes on remembers.

    Args:
      folder: the model folder.
      early_stop: ends the training after so many evaluations in a row without a better AP.
      stop: raises to end an evaluation.
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
        """Evaluates a checkpoint, unless that was done, and keeps it if it is the best.

        Returns:
          Whether the training should end.
        """
        step = checkpoints.step(checkpoint)
        rows = [row for row in evaluate.read_metrics(self._folder) if row["step"] <= step]
        if step not in {row["step"] for row in rows}:
            if self._evaluator is None:
                self._evaluator = evaluate.Evaluator(
                    model_dir.load(self._folder), self._folder, self._stop
                )
            self.last = self._evaluator.evaluate(checkpoint)
            rows.append(self.last.metrics)
            evaluate.write_metrics(self._folder, rows)
        best = max(rows, key=lambda row: row["AP"])
        if best["step"] == step:
            keep(checkpoint, step)
        return self._early_stop is not None and len(rows) - rows.index(best) > self._early_stop


def keep(checkpoint: str, step: int) -> str:
    """Copies a checkpoint to `best-STEP` beside it and drops the best one before; returns its prefix."""
    folder = Path(checkpoint).parent
    target = folder / f"{_PREFIX}{step}"
    # The index last: a checkpoint without one does not exist.
    parts = sorted(folder.glob(f"{Path(checkpoint).name}.*"), key=lambda path: path.suffix == ".index")
    for part in parts:
        copy = folder / f".{target.name}{part.suffix}.part"
        shutil.copyfile(part, copy)
        os.replace(copy, folder / f"{target.name}{part.name.removeprefix(Path(checkpoint).name)}")
    for old in find(folder):
        if old != str(target):
            # The index first, for the same reason.
            for part in sorted(folder.glob(f"{Path(old).name}.*"), key=lambda path: path.suffix != ".index"):
                part.unlink()
    return str(target)


def find(folder: str | os.PathLike) -> list[str]:
    """Prefixes of the best checkpoints of a model folder: one, or none."""
    found = sorted(Path(folder).glob(f"{_PREFIX}*.index"))
    return [str(path).removesuffix(".index") for path in found]
