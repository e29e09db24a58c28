"""TensorBoard summaries of a search: scalars of every step and the policy as a heat map."""

import os
from typing import Any

from mobiledets_tf.compat import tf
from mobiledets_tf.search import plots
from mobiledets_tf.search_space import SearchSpace

FOLDER = "summaries"


class Summaries:
    """Writes TensorBoard event files into a subfolder of the search's folder.

    Args:
      model_dir: folder of the search.
    """

    def __init__(self, model_dir: str | os.PathLike):
        self._writer = tf.summary.create_file_writer(os.path.join(os.fspath(model_dir), FOLDER))

    def scalars(self, row: dict[str, Any]) -> None:
        """Writes the float values of a step's row as scalars."""
        with self._writer.as_default(step=row["step"]):
            for name, value in row.items():
                if name != "step" and isinstance(value, float):
                    tf.summary.scalar(f"search/{name}", value)

    def policy(self, step: int, device: str, space: SearchSpace, snapshots: list[dict[str, Any]]) -> None:
        """Writes the probabilities of all decisions over time as an image."""
        image = tf.io.decode_png(plots.policy_png(space, snapshots), channels=3)
        with self._writer.as_default(step=step):
            tf.summary.image(f"policy/{device}", image[None])
        self._writer.flush()
