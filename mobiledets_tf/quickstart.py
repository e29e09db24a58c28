"""Stages run one after the other as commands of their own; what is done is not done again."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledets_tf.errors import InputError
from mobiledets_tf.files import read_json, write_json


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
      name: of the marker file.
      command: of mobiledets_tf.cli.
      flags: its arguments.
      output: file or folder in the work folder that it writes, removed before a changed run.
    """

    name: str
    command: str
    flags: tuple[str, ...]
    output: str | None = None

    @property
    def arguments(self) -> list[str]:
        return [sys.executable, "-m", f"mobiledets_tf.cli.{self.command}", *self.flags]


def call(arguments: Sequence[str]) -> int:
    """Runs a command; its output and progress pass through."""
    return subprocess.run(arguments, check=False).returncode


def signature(folder: str | os.PathLike) -> list[list]:
    """Name, size and time of change of every file: tells whether inputs changed."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def run_stages(
    work_dir: str | os.PathLike, stages: Sequence[Stage], inputs: list, runner: Callable[..., int] = call
) -> int:
    """Runs what is not done. A changed stage runs again, and all after it.

    Returns:
      0, or the exit code of the stage that failed.
    """
    work_dir = Path(work_dir)
    for number, stage in enumerate(stages):
        marker = _marker(work_dir, stage)
        record = {"arguments": stage.arguments[1:], "output": stage.output, "inputs": inputs}
        before = read_json(marker, "stage marker") if marker.exists() else None
        if before == record | {"done": True} and _present(work_dir, stage):
            print(f"{stage.name}: done before", flush=True)
            continue
        # An unfinished run with the same arguments goes on; anything else starts afresh.
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
    """Drops the markers of all other stages and what they wrote, also of stages not in this call.

    Before the run, so that an interrupted one leaves nothing that is stale.
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
        raise InputError(f"output {output!r} leaves the work folder")
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
