"""Writes networks for timing elsewhere, on a phone or a board, with TFLite's own `benchmark_model`.

`write` makes the .tflite files, a manifest and the commands. `read_results` reads complete or partial
results: a CSV file with the columns `network,ms`, or the logs of `benchmark_model`.
"""

import csv
import json
import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf.errors import InputError, nearest
from mobiledets_tf.files import atomic_path, read_artefact, read_text, write_json, write_text
from mobiledets_tf.latency import samples
from mobiledets_tf.search_space import SearchSpace, decode
from tflite_export.devices import benchmark_log
from tflite_export.graphs import Settings, network_graph

MANIFEST, COMMANDS = "manifest.json", "benchmark.sh"
SCHEMA_VERSION = 1
_BINARY = "https://ai.google.dev/edge/litert/models/measurement"
_PHONE_FOLDER = "/data/local/tmp/mobiledets"


def write(
    folder: str | os.PathLike,
    header: dict[str, Any],
    space: SearchSpace,
    settings: Settings,
    networks: Iterable[np.ndarray],
    adb: bool,
    threads: int,
    runs: int,
    progress: Callable = lambda x: x,
) -> Path:
    """Writes NAME.tflite for every network, the manifest and the commands; returns the manifest's path.

    Existing files are kept, so an interrupted run resumes.
    """
    from tflite_export.graphs.write_tflite import to_tflite

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    listed = {f"network_{number:05d}": network for number, network in enumerate(networks)}
    decisions = {name: network.tolist() for name, network in listed.items()}
    manifest = {"schema_version": SCHEMA_VERSION, "header": header, "networks": decisions}
    path = folder / MANIFEST
    if path.exists() and {"schema_version": SCHEMA_VERSION} | read_manifest(folder) != manifest:
        raise InputError(f"{str(path)!r} belongs to other networks or settings; use another --output")
    write_json(path, manifest)
    for name, decisions in progress(listed.items()):
        file = folder / f"{name}.tflite"
        if not file.exists():
            with atomic_path(file) as temporary:
                temporary.write_bytes(to_tflite(network_graph(decode(space, decisions), settings)))
    write_text(folder / COMMANDS, _commands(listed, adb, threads, runs))
    return path


def _commands(names: Iterable[str], adb: bool, threads: int, runs: int) -> str:
    """Returns a shell script that runs `benchmark_model` for each network and writes NAME.log."""
    lines = [
        "#!/bin/sh",
        f"# benchmark_model for the device: {_BINARY}",
        "# Run this script in its folder; a second call resumes where the first one stopped.",
    ]
    flags = f"--num_threads={threads} --num_runs={runs} --warmup_runs=5"
    if adb:
        lines += [
            f"adb shell mkdir -p {_PHONE_FOLDER}",
            f"adb push benchmark_model {_PHONE_FOLDER}/",
            f"adb shell chmod +x {_PHONE_FOLDER}/benchmark_model",
        ]
    for name in names:
        file = shlex.quote(f"{name}.tflite")
        if adb:
            binary = f"{_PHONE_FOLDER}/benchmark_model"
            run = (
                f"adb push {file} {_PHONE_FOLDER}/ && adb shell {binary} "
                f"--graph={_PHONE_FOLDER}/{file} {flags}"
            )
            after = f"; adb shell rm -f {_PHONE_FOLDER}/{file}"
        else:
            run, after = f"./benchmark_model --graph={file} {flags}", ""
        done = f"grep -qsE 'Inference \\(avg\\):|no stats:' {name}.log"
        lines.append(f"{done} || {{ {run} > {name}.log 2>&1{after}; }}")
    return "\n".join(lines) + "\n"


def read_results(folder: str | os.PathLike, results: str | os.PathLike | None) -> dict[str, float]:
    """Reads times in ms by network name, from a CSV file or from the logs in the folder.

    Raises:
      InputError: a row has a network that is not in the manifest, a network that occurs twice, or a
        time that is not a number above 0 (the message names the row); or no log can be parsed (the
        message names one).
    """
    names = read_manifest(folder)["networks"]
    rows = _csv_rows(results) if results else _log_rows(Path(folder), names)
    found: dict[str, float] = {}
    for where, name, text in rows:
        if name not in names:
            raise InputError(f"{where}: network {name[:60]!r} is not in the manifest{nearest(name, names)}")
        if name in found:
            raise InputError(f"{where}: network {name!r} occurs twice")
        found[name] = _milliseconds(where, text)
    if not found:
        strange = [] if results else logs_not_understood(folder)
        if strange:
            more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            raise InputError(f"log {strange[0]!r}{more}: the log contains no timing that can be parsed")
        raise InputError(f"no results in {os.fspath(results or folder)!r}; run {COMMANDS} first")
    return found


def _csv_rows(path: str | os.PathLike) -> Iterator[tuple[str, str, str]]:
    rows = list(csv.reader(read_text(path, "results", "utf-8-sig").splitlines()))
    if not rows or [cell.strip().lower() for cell in rows[0]] != ["network", "ms"]:
        raise InputError(f"results {os.fspath(path)!r}: the first line should be network,ms")
    for number, row in enumerate(rows[1:], 2):
        where = f"results {os.fspath(path)!r}, line {number}"
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != 2:
            raise InputError(f"{where}: {len(row)} cells; expected 2: network,ms")
        yield where, row[0].strip().removesuffix(".tflite"), row[1]


def _log_rows(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    for name in names:
        path = folder / f"{name}.log"
        if path.is_file():
            timing = benchmark_log.parse(path.read_text(encoding="utf-8", errors="replace"))
            if timing is not None:
                yield f"log {str(path)!r}", name, str(timing.ms)


def logs_not_understood(folder: str | os.PathLike) -> list[str]:
    """Returns the paths of existing logs of a folder's networks that contain no timing."""
    paths = (Path(folder) / f"{name}.log" for name in read_manifest(folder)["networks"])
    return [
        str(path)
        for path in paths
        if path.is_file() and benchmark_log.parse(path.read_text(encoding="utf-8", errors="replace")) is None
    ]


def _milliseconds(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"{where}: time is {text.strip()[:40]!r}; allowed: numbers above 0, in ms")
    return value


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """Reads the manifest of a folder.

    Raises:
      InputError: there is no manifest, or it is invalid.
    """
    path = Path(folder) / MANIFEST
    manifest = read_artefact(path, "manifest", SCHEMA_VERSION, absent=1)
    if not all(isinstance(manifest.get(key), dict) for key in ("header", "networks")):
        raise InputError(f"{str(path)!r} is not a manifest: it should have the objects header and networks")
    return manifest


def write_samples(
    folder: str | os.PathLike, results: str | os.PathLike | None, output: str | os.PathLike
) -> tuple[int, int]:
    """Writes samples of all available results; returns the numbers of available and missing ones."""
    manifest, times = read_manifest(folder), read_results(folder, results)
    lines = [{"schema_version": samples.SCHEMA_VERSION} | manifest["header"]]
    lines += [
        {"decisions": decisions, "ms": times[name]}
        for name, decisions in manifest["networks"].items()
        if name in times
    ]
    write_text(output, "".join(json.dumps(line) + "\n" for line in lines))
    return len(times), len(manifest["networks"]) - len(times)
