"""Measured networks: one JSON object a line, appended one at a time, so that a killed run goes on.

The first line says what was measured: device, variant, kind, versions, space, image size, class
count, head, seed. Each further line has `decisions` and either `ms` or `error`.
"""

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf.errors import InputError
from mobiledets_tf.files import read_json
from mobiledets_tf.search_space import SKIP, SearchSpace, check_decisions, sample, stored_space

SCHEMA_VERSION = 1
# How networks are drawn: every decision uniformly; half of them leaning to narrow or wide;
# as the latter, of those that a first model predicts inside a band.
SAMPLINGS = ("uniform", "spread", "band")
# Proposals without one inside the band before it is given up.
_MAX_MISSES = 100_000


def proposals(space: SearchSpace, seed: int, spread: bool) -> Iterator[np.ndarray]:
    """Endless decision vectors, each int32 [decisions]; the same seed gives the same networks.

    Uniform draws of every decision. With `spread`, every other network leans to narrow widths
    and left-out layers or to the opposite, by a degree of its own: uniform draws alone hardly
    leave the middle of the latency range.
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
    """Those proposals that a first model predicts inside a band.

    Args:
      networks: proposals, endless.
      predict: int [networks, decisions] to costs, `LatencyModel.predict`.
      band: (lowest, highest) cost.

    Raises:
      InputError: hardly any network is inside.
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
                f"none of {misses:,} networks is predicted inside the band {low:.4g} to {high:.4g}"
            )
        yield from chosen


def given(path: str | os.PathLike, space: SearchSpace) -> list[np.ndarray]:
    """Networks of a JSON file: every `decisions` in it, wherever it stands (a search's report, an
    architecture), each once, in the file's order.

    Raises:
      InputError: not JSON, no decisions in it, or some that are not of the space.
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
        raise InputError(f"networks {os.fspath(path)!r}: no decisions of networks in the file")
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


def _lean(node, lean: float, draw: float, uniform: int) -> int:
    """A width, or whether a layer is left out, drawn with odds that `lean` tilts."""
    if node.tag == "filters":
        odds = np.exp(lean * np.linspace(-1.5, 1.5, len(node.choices)))
    elif SKIP in node.choices:
        odds = np.ones(len(node.choices))
        odds[node.choices.index(SKIP)] = len(node.choices) * 0.5 * math.exp(-2 * lean)
    else:
        return uniform
    return int(min(np.searchsorted(np.cumsum(odds / odds.sum()), draw), len(odds) - 1))


def collect(
    path: str | os.PathLike,
    header: dict[str, Any],
    networks: Iterator[np.ndarray],
    count: int,
    measure: Callable[[np.ndarray], float],
    progress=lambda items, **kwargs: items,
) -> dict[str, Any]:
    """Measures until the file has `count` networks; failures count and are recorded.

    Args:
      path: of the samples; one that exists is continued.
      header: first line; must equal that of a file that exists.
      networks: the proposals from the start; those in the file are passed over.
      count: networks that the file shall have.
      measure: decisions to milliseconds; RuntimeError is a failure of that network.
      progress: wraps the range of missing networks (tqdm).

    Returns:
      `measured`, `failed` (of this call) and `seconds`.
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
        raise RuntimeError(f"the device gave {milliseconds!r} ms; allowed: numbers above 0")
    return float(milliseconds)


def _drop_half_line(path: Path) -> None:
    """What a killed run left of its last line."""
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        with open(path, "r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def read(path: str | os.PathLike) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and rows; a half-written last line is left out.

    Raises:
      InputError: no such file, not samples, or a damaged line (its number is named).
    """
    where = f"samples {os.fspath(path)!r}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {where}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{where} are not UTF-8 text") from error
    lines = text.split("\n")[:-1]
    parsed = [_object(line, f"{where}, line {number}") for number, line in enumerate(lines, 1)]
    if not parsed or parsed[0].get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{where}: the first line has no schema_version {SCHEMA_VERSION}")
    for number, row in enumerate(parsed[1:], 2):
        if not isinstance(row.get("decisions"), list) or ("ms" in row) == ("error" in row):
            raise InputError(f"{where}, line {number}: decisions and either ms or error are needed")
    return parsed[0], parsed[1:]


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not valid JSON") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is not an object")
    return value


def table(space: SearchSpace, path: str | os.PathLike) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Header, decisions int32 [n, decisions] and float64 ms [n] of the networks that were measured.

    Raises:
      InputError: a network outside the space, a time that is no positive number, or a duplicate
        with another time.
    """
    header, rows = read(path)
    seen: dict[tuple[int, ...], float] = {}
    for number, row in enumerate(rows, 2):
        if "error" in row:
            continue
        where = f"samples {os.fspath(path)!r}, line {number}"
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
        if seen.setdefault(tuple(decisions), milliseconds) != milliseconds:
            raise InputError(f"{where}: a network that is there already, with another time")
    return header, np.array(list(seen), np.int32), np.array(list(seen.values()), np.float64)


def space_of(header: dict[str, Any]) -> SearchSpace:
    """The space that samples were drawn from.

    Raises:
      InputError: it is unknown here, or its content changed; both hashes are named.
    """
    try:
        return stored_space(header["search_space"])
    except InputError as error:
        raise InputError(f"samples: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"samples: search_space is missing or malformed ({error})") from error


def require_same(headers: list[dict[str, Any]], header: dict[str, Any], path: str | os.PathLike) -> None:
    """Raises InputError, with both values, unless samples belong to those read before, and are complete."""
    for key in _HEADER_KEYS:
        if key not in header:
            raise InputError(f"samples {os.fspath(path)!r}: the first line has no {key}")
        if headers and headers[0][key] != header[key] and key not in ("seed", "sampling"):
            raise InputError(
                f"samples {os.fspath(path)!r} have {key} {header[key]!r}; the first have {headers[0][key]!r}"
            )


_HEADER_KEYS = (
    "device", "variant", "kind", "versions", "search_space", "image_size", "num_classes", "head", "seed",
    "sampling",
)  # fmt: skip


def joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Decisions and times of several files; a network that is in two counts once, with its lowest time.

    What else a machine did makes a measured time longer, never shorter.
    """
    times: dict[tuple[int, ...], float] = {}
    for decisions, milliseconds in parts:
        for network, value in zip(map(tuple, decisions.tolist()), milliseconds.tolist(), strict=True):
            times[network] = min(value, times.get(network, value))
    return np.array(list(times), np.int32), np.array(list(times.values()), np.float64)
