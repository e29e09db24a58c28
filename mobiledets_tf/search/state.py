"""State of a search on disk: the checkpoint is written first, then the state that belongs to it.

`search_state.json` names the step whose checkpoint is complete. A run that is killed at any moment
leaves either the previous or the new state and resumes from it, because images and random numbers
are functions of the step.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledets_tf.compat import tf
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import read_artefact, write_json

if TYPE_CHECKING:
    from mobiledets_tf.models.supernet import Supernet
    from mobiledets_tf.search.optimizer import SharedMomentum

STATE, SCHEMA_VERSION = "search_state.json", 5
_PREFIX = "search-"


def checkpoint(supernet: "Supernet", optimizer: "SharedMomentum | None" = None) -> tf.train.Checkpoint:
    """Returns a checkpoint of the shared weights and their momentum: each bank under its label."""
    names = [bank.label for bank in supernet.banks]
    kept: dict[str, Any] = {
        "weights": {name: bank.rows for name, bank in zip(names, supernet.banks, strict=True)}
    }
    if optimizer is not None:
        kept["momentum"] = dict(zip(names, optimizer.slots, strict=True))
    return tf.train.Checkpoint(**kept)


def save(folder: str | os.PathLike, saved: tf.train.Checkpoint, state: dict[str, Any]) -> None:
    """Writes the checkpoint and the state of `state["step"]`, then removes checkpoints of other steps."""
    folder, name = Path(folder), f"{_PREFIX}{state['step']}"
    saved.write(str(folder / name))
    write_json(folder / STATE, {"schema_version": SCHEMA_VERSION} | state)
    for path in folder.glob(f"{_PREFIX}*"):
        if path.name.partition(".")[0] != name and not path.is_dir():
            path.unlink()


def load(folder: str | os.PathLike) -> dict[str, Any] | None:
    """Returns the last saved state, or None if the search has not saved one yet.

    Raises:
      InputError: the file is damaged or has another schema version.
    """
    path = Path(folder) / STATE
    if not path.exists():
        return None
    # A search resumes to the bit, so no other version is read.
    return read_artefact(path, "search state", SCHEMA_VERSION, oldest=SCHEMA_VERSION)


def restore(folder: str | os.PathLike, saved: tf.train.Checkpoint, step: int) -> None:
    """Restores the checkpoint of a step.

    Raises:
      InputError: the checkpoint is missing, damaged or belongs to another network.
    """
    path = str(Path(folder) / f"{_PREFIX}{step}")
    try:
        status = saved.read(path)
        status.assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"weights {path!r} cannot be read: {reason}") from error
