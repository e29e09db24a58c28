"""Runs stages in order, each as a command in its own process, and skips stages that are done."""

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledets_tf import commands
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import read_json, write_json


@dataclass(frozen=True)
class Stage:
    """One command to run.

    Attributes:
      name: name of the stage, also of its marker file.
      command: module of `mobiledets_tf.cli` to run.
      flags: arguments of the command.
      output: file or folder that the command writes, relative to the work folder. It is removed before
        the stage runs with other arguments or inputs. None if the command writes nothing.
    """

    name: str
    command: str
    flags: tuple[str, ...]
    output: str | None = None

    @property
    def arguments(self) -> list[str]:
        """The command of the stage with its flags."""
        return commands.line(self.command, self.flags)


def signature(folder: str | os.PathLike) -> list[list]:
    """Returns name, size and modification time of every file in a folder, to detect changed inputs."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def run_stages(
    work_dir: str | os.PathLike,
    stages: Sequence[Stage],
    inputs: list,
    runner: Callable[..., int] = commands.call,
) -> int:
    """Runs all stages that are not done; a changed stage and all stages after it run again.

    Args:
      work_dir: folder of the markers and outputs.
      stages: stages in the order in which they run.
      inputs: JSON-ready signature of the user's input files; a change makes every stage run again.
      runner: called with the arguments of a stage; returns its exit code.

    Returns:
      0, or the exit code of the first stage that failed.
    """
    work_dir = Path(work_dir)
    for number, stage in enumerate(stages):
        marker = _marker(work_dir, stage)
        record = {"arguments": stage.arguments[1:], "output": stage.output, "inputs": inputs}
        before = read_json(marker, "stage marker") if marker.exists() else None
        if before == record | {"done": True} and _present(work_dir, stage):
            print(f"{stage.name}: already done", flush=True)
            continue
        # An interrupted run with the same arguments and inputs resumes; any other run starts from scratch.
        if before != record | {"done": False}:
            _forget(work_dir, keep=[earlier.name for earlier in stages[:number]])
        write_json(marker, record | {"done": False})
        print(f"{stage.name}: {shlex.join(stage.arguments)}", flush=True)
        code = runner(stage.arguments)
        if code:
            return code
        write_json(marker, record | {"done": True})
    return 0


def _marker(work_dir: Path, stage: Stage) -> Path:
    return work_dir / "stages" / f"{stage.name}.json"


def _forget(work_dir: Path, keep: Sequence[str]) -> None:
    """Removes markers and outputs of all stages not named in `keep`, including stages of earlier calls.

    This is done before a stage runs, so that an interruption leaves no stale output behind.
    """
    for marker in (work_dir / "stages").glob("*.json"):
        if marker.stem not in keep:
            _remove(work_dir, read_json(marker, "stage marker").get("output"))
            marker.unlink()


def _present(work_dir: Path, stage: Stage) -> bool:
    return stage.output is None or (work_dir / stage.output).exists()


def _remove(work_dir: Path, output: str | None) -> None:
    if output is None:
        return
    target = (work_dir / output).resolve()
    if work_dir.resolve() not in target.parents:
        raise InputError(f"output {output!r} is outside the work folder")
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
