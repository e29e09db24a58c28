"""Journal of a search in JSON Lines format, written while the search runs."""

import json
import os
from pathlib import Path
from typing import Any

from mobiledets_tf.files import write_text


class Journal:
    """A file to which rows are appended during a search; each row has a `step`.

    Args:
      path: path of the file.
      step: step of the saved state that the search resumes from; rows of later steps are removed because
        the resumed search writes them again.
    """

    def __init__(self, path: str | os.PathLike, step: int):
        self._path = Path(path)
        lines = self._path.read_text("utf-8").splitlines(keepends=True) if self._path.exists() else []
        self.rows: list[dict[str, Any]] = []
        for line in lines:
            # If the run was killed while it was writing, the last line is incomplete.
            row = json.loads(line) if line.endswith("\n") else None
            if row is None or row["step"] > step:
                break
            self.rows.append(row)
        if len(self.rows) < len(lines):
            write_text(self._path, "".join(lines[: len(self.rows)]))

    def append(self, row: dict[str, Any]) -> None:
        """Appends a row to the file."""
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
