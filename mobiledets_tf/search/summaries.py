"""What TensorBoard shows of a search: scalars of every step, the policy as a heat map."""

import os
from typing import Any

from mobiledets_tf.compat import tf
from mobiledets_tf.search import pictures
from mobiledets_tf.search_space import SearchSpace

FOLDER = "summaries"


class Summaries:
    """Writes event files into a folder of the search.

    Args:
      model_dir: of the search.
    """

    def __init__(self, model_dir: str | os.PathLike):
        self._writer = tf.summary.create_file_writer(os.path.join(os.fspath(model_dir), FOLDER))

    def scalars(self, row: dict[str, Any]) -> None:
        """The numbers of a step."""
        with self._writer.as_default(step=row["step"]):
            for name, value in row.items():
                if name != "step" and isinstance(value, float):
                    tf.summary.scalar(f"search/{name}", value)

    def policy(self, step: int, device: str, space: SearchSpace, snapshots: list[dict[str, Any]]) -> None:
        """Probabilities of all decisions over time, as an image."""
        image = tf.io.decode_png(pictures.policy_png(space, snapshots), channels=3)
        with self._writer.as_default(step=step):
            tf.summary.image(f"policy/{device}", image[None])
        self._writer.flush()
