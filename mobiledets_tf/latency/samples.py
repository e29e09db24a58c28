"""Files of measured networks with one JSON object per line.

Lines are appended one at a time, so a run that was killed can resume. The first line is a header that
says what was measured: device, variant, kind, versions, space, image size, class count, head and seed.
Each further line has `decisions` and either `ms` or `error`.
"""

import dataclasses
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf.errors import InputError
from mobiledets_tf.files import check_version, read_json, read_text
from mobiledets_tf.search_space import SKIP, OneOf, SearchSpace, check_decisions, sample, stored_space

SCHEMA_VERSION = 1
# Ways to draw networks. "uniform" draws every decision uniformly, "spread" makes half of the networks
# lean towards narrow or wide ones, and "band" keeps those networks of "spread" whose cost a first model
# predicts to be inside a band.
SAMPLINGS = ("uniform", "spread", "band")
# Number of consecutive proposals outside the band after which drawing fails.
_MAX_MISSES = 100_000


def proposals(space: SearchSpace, seed: int, spread: bool) -> Iterator[np.ndarray]:
    """Yields random networks without end; the same seed reproduces the same networks.

    Every decision is drawn uniformly. With `spread`, each network leans with probability 0.5 towards
    narrow widths and skipped layers, or towards the opposite, to a random degree. Uniform draws alone
    hardly leave the middle of the latency range.

    Args:
      space: the search space.
      seed: seed of the random numbers.
      spread: whether half of the networks lean towards narrow or wide ones.

    Yields:
      Decisions, int32 [decisions].
    """
    rng = np.random.default_rng(seed)
    nodes = [node for _, node in space.decisions]
    while True:
        decisions = sample(space, rng)
        lean = rng.uniform(-1.5, 1.5)
        draws = rng.random(len(nodes))
        if spread and rng.random() < 0.5:
            decisions = np.array(
                [_lean(*of_one) for of_one in zip(nodes, [lean] * len(nodes), draws, decisions, strict=True)],
                np.int32,
            )
        yield decisions


def in_band(networks: Iterator[np.ndarray], predict: Callable, band: tuple[float, float]) -> Iterator:
    """Yields those networks whose cost a first model predicts to be inside a band.

    Args:
      networks: endless iterator of decisions, int32 [decisions].
      predict: function from int [networks, decisions] to costs, such as `LatencyModel.predict`.
      band: (lowest, highest) cost.

    Raises:
      InputError: none of 100,000 consecutive networks is inside the band.
    """
    low, high = band
    misses = 0
    while True:
        drawn = np.stack(list(itertools.islice(networks, 64)))
        costs = predict(drawn)
        chosen = drawn[(costs >= low) & (costs <= high)]
        misses = 0 if len(chosen) else misses + len(drawn)
        if misses >= _MAX_MISSES:
            raise InputError(
                f"the model predicts none of {misses:,} networks to be inside the band {low:.4g} to "
                f"{high:.4g}"
            )
        yield from chosen


def given(path: str | os.PathLike, space: SearchSpace) -> list[np.ndarray]:
    """Reads the networks of a JSON file, such as the report of a search or an architecture file.

    Args:
      path: path of the file.
      space: search space of the networks.

    Returns:
      The decisions, each int32 [decisions], found under a key `decisions` at any depth of the file, in
      their order and without duplicates.

    Raises:
      InputError: the file is not JSON, contains no decisions, or contains some that are not valid for
        the space.
    """
    found = {}
    for decisions in _decisions_in(read_json(path, "networks")):
        if not isinstance(decisions, list) or not all(type(d) is int for d in decisions):
            raise InputError(f"networks {os.fspath(path)!r}: decisions are not a list of integers")
        try:
            check_decisions(space, decisions)
        except InputError as error:
            raise InputError(f"networks {os.fspath(path)!r}: {error}") from error
        found[tuple(decisions)] = np.array(decisions, np.int32)
    if not found:
        raise InputError(f"networks {os.fspath(path)!r}: the file contains no decisions of networks")
    return list(found.values())


def _decisions_in(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "decisions" and isinstance(inner, list) and inner and not isinstance(inner[0], dict):
                yield inner
            else:
                yield from _decisions_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _decisions_in(inner)


def _lean(node: OneOf, lean: float, draw: float, uniform: int) -> int:
    """Draws one decision with odds that lean towards narrow or wide networks.

    Args:
      node: the decision; only widths and skippable layers are affected.
      lean: degree of the lean; negative values favour narrow widths and skipped layers.
      draw: uniform random number from 0 to 1.
      uniform: option to return for any other decision.

    Returns:
      The index of an option.
    """
    if node.tag == "filters":
        odds = np.exp(lean * np.linspace(-1.5, 1.5, len(node.choices)))
    elif SKIP in node.choices:
        odds = np.ones(len(node.choices))
        odds[node.choices.index(SKIP)] = len(node.choices) * 0.5 * math.exp(-2 * lean)
    else:
        return uniform
    return min(int(np.searchsorted(np.cumsum(odds / odds.sum()), draw)), len(odds) - 1)


def collect(
    path: str | os.PathLike,
    header: dict[str, Any],
    networks: Iterator[np.ndarray],
    count: int,
    measure: Callable[[np.ndarray], float],
    progress: Callable = lambda items, **kwargs: items,
) -> dict[str, Any]:
    """Measures networks until a file of samples has `count` of them.

    A network that fails is recorded with its error and is included in the count.

    Args:
      path: path of the file; an existing file is appended to.
      header: content of the first line; it must equal that of an existing file.
      networks: all networks, starting with the first one; those already in the file are skipped.
      count: number of networks that the file has at the end.
      measure: function from decisions to milliseconds; a RuntimeError means that this network failed.
      progress: wraps the range of the missing networks with a progress bar (tqdm).

    Returns:
      The numbers of networks `measured` and `failed` in this call, and its duration in `seconds`.

    Raises:
      InputError: an existing file is damaged, or its header differs from `header`.
    """
    path = Path(path)
    header = {"schema_version": SCHEMA_VERSION} | header
    done = 0
    if path.exists() and path.stat().st_size:
        found, rows = read(path)
        for key in sorted(set(header) | set(found)):
            if found.get(key) != header.get(key):
                raise InputError(
                    f"samples {str(path)!r} have {key} {found.get(key)!r}; this run has {header.get(key)!r}"
                )
        done = len(rows)
        _drop_half_line(path)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
    for _ in range(done):
        next(networks)
    started, failed, missing = time.monotonic(), 0, range(done, count)
    with open(path, "a", encoding="utf-8") as file:
        for _ in progress(missing, desc="networks", unit="network"):
            decisions = next(networks)
            row: dict[str, Any] = {"decisions": decisions.tolist()}
            try:
                row["ms"] = _positive(measure(decisions))
            except RuntimeError as error:
                row["error"], failed = " ".join(str(error).split())[:300], failed + 1
            file.write(json.dumps(row) + "\n")
            file.flush()
    return {"measured": len(missing) - failed, "failed": failed, "seconds": time.monotonic() - started}


def _positive(milliseconds: float) -> float:
    if not 0 < milliseconds < math.inf:
        raise RuntimeError(f"the device reported {milliseconds!r} ms; allowed: numbers above 0")
    return float(milliseconds)


def _drop_half_line(path: Path) -> None:
    """Removes an incomplete last line, which a killed run may have left."""
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        with open(path, "r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def read(path: str | os.PathLike) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Reads the header and the rows of a file of samples; an incomplete last line is ignored.

    Raises:
      InputError: the file does not exist, does not contain samples, or has a damaged line, whose number
        is named.
    """
    where = f"samples {os.fspath(path)!r}"
    lines = read_text(path, "samples").split("\n")[:-1]
    parsed = [_object(line, f"{where}, line {number}") for number, line in enumerate(lines, 1)]
    try:
        check_version(parsed[0] if parsed else {}, SCHEMA_VERSION)
    except InputError as error:
        raise InputError(f"{where}, line 1: {error}") from error
    for number, row in enumerate(parsed[1:], 2):
        if not isinstance(row.get("decisions"), list) or ("ms" in row) == ("error" in row):
            raise InputError(f"{where}, line {number}: 'decisions' and either 'ms' or 'error' are needed")
    return parsed[0], parsed[1:]


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not valid JSON") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is not an object")
    return value


@dataclasses.dataclass(frozen=True)
class Samples:
    """The content of a file of samples.

    Attributes:
      header: the first line.
      networks: number of networks, including those that failed.
      failed: number of networks that failed.
      decisions: the measured networks, each once; int32 [networks, decisions].
      times: their times in ms; float64 [networks].
    """

    header: dict[str, Any]
    networks: int
    failed: int
    decisions: np.ndarray
    times: np.ndarray


def load(path: str | os.PathLike, space: SearchSpace | None = None) -> Samples:
    """Reads a file of samples.

    Args:
      path: path of the file.
      space: search space of the networks; default: that of the header.

    Raises:
      InputError: a network is not valid for the space, a time is not a positive number, or a network
        occurs twice with different times.
    """
    header, rows = read(path)
    space = space_of(header) if space is None else space
    seen: dict[tuple[int, ...], float] = {}
    for number, row in enumerate(rows, 2):
        if "error" not in row:
            where = f"samples {os.fspath(path)!r}, line {number}"
            decisions, milliseconds = _measured(row, space, where)
            if seen.setdefault(decisions, milliseconds) != milliseconds:
                raise InputError(f"{where}: this network occurs earlier in the file with a different time")
    networks, times = np.array(list(seen), np.int32), np.array(list(seen.values()), np.float64)
    return Samples(header, len(rows), sum("error" in row for row in rows), networks, times)


def _measured(row: dict[str, Any], space: SearchSpace, where: str) -> tuple[tuple[int, ...], float]:
    """Checks the line of a measured network; returns its decisions and its time in ms."""
    milliseconds, decisions = row["ms"], row["decisions"]
    is_number = isinstance(milliseconds, (int, float)) and not isinstance(milliseconds, bool)
    if not is_number or not 0 < milliseconds < math.inf:
        raise InputError(f"{where}: ms is {milliseconds!r}; allowed: numbers above 0")
    if not all(isinstance(d, int) for d in decisions):
        raise InputError(f"{where}: decisions are not integers")
    try:
        check_decisions(space, decisions)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return tuple(decisions), milliseconds


def load_all(paths: Sequence[str | os.PathLike]) -> list[Samples]:
    """Reads several files of samples of one device and space.

    Raises:
      InputError: as `load` and `require_same`.
    """
    found: list[Samples] = []
    for path in paths:
        found.append(load(path))
        require_same([samples.header for samples in found[:-1]], found[-1].header, path)
    return found


def space_of(header: dict[str, Any]) -> SearchSpace:
    """Returns the search space that samples were drawn from, given their header.

    Raises:
      InputError: the space is unknown to this version, or its content has changed (both hashes are named).
    """
    try:
        return stored_space(header["search_space"])
    except InputError as error:
        raise InputError(f"samples: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"samples: search_space is missing or malformed ({error})") from error


def require_same(headers: list[dict[str, Any]], header: dict[str, Any], path: str | os.PathLike) -> None:
    """Checks that the header of a file of samples is complete and fits the headers of the files before it.

    Raises:
      InputError: an entry is missing, or differs from that of the first file (both values are named).
    """
    for key in _HEADER_KEYS:
        if key not in header:
            raise InputError(f"samples {os.fspath(path)!r}: the first line has no {key}")
        if headers and headers[0][key] != header[key] and key not in ("seed", "sampling"):
            raise InputError(
                f"samples {os.fspath(path)!r} have {key} {header[key]!r}; the first file has "
                f"{headers[0][key]!r}"
            )


_HEADER_KEYS = (
    "device",
    "variant",
    "kind",
    "versions",
    "search_space",
    "image_size",
    "num_classes",
    "head",
    "seed",
    "sampling",
)


def joined(files: Sequence[Samples]) -> tuple[np.ndarray, np.ndarray]:
    """Merges the networks of several files of samples.

    A network that several files contain is kept once, with its lowest time, because other work on a
    machine makes a measured time longer, never shorter.

    Returns:
      The decisions, int32 [networks, decisions], and the times in ms, float64 [networks].
    """
    times: dict[tuple[int, ...], float] = {}
    for samples in files:
        rows = zip(map(tuple, samples.decisions.tolist()), samples.times.tolist(), strict=True)
        for network, value in rows:
            times[network] = min(value, times.get(network, value))
    return np.array(list(times), np.int32), np.array(list(times.values()), np.float64)
