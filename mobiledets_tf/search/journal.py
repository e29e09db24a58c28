"""Rows that a search writes as it goes: JSON, one row a line."""

import json
import os
from pathlib import Path
from typing import Any

from mobiledets_tf.files import write_text


class Journal:
    """Appended to at every step; each row has a `step`.

    Args:
      path: of the file.
      step: rows of later steps are dropped: they are made again from the state saved at `step`.
    """

    def __init__(self, path: str | os.PathLike, step: int):
        self._path = Path(path)
        lines = self._path.read_text("utf-8").splitlines(keepends=True) if self._path.exists() else []
        self.rows: list[dict[str, Any]] = []
        for line in lines:
            # The line that was being written when the run was killed is the last one.
            row = json.loads(line) if line.endswith("\n") else None
            if row is None or row["step"] > step:
                break
            self.rows.append(row)
        if len(self.rows) < len(lines):
            write_text(self._path, "".join(lines[: len(self.rows)]))

    def append(self, row: dict[str, Any]) -> None:
        """Writes a row."""
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
