"""Measures how time and memory grow with the size of what a user asks for, and fits lines to the figures.

  python benchmarks/growth.py --output=growth.json --work_dir=growth

Prints one JSON object with these tables (`--parts`):

  training                     a training step of `edgetpu` by width, image size and batch size
  search                       a step of the same networks in six search spaces of different sizes
  check, convert, evaluation   these commands on different numbers of images

Each row is written to --output as soon as it is there; a further call measures what is missing. `cpu` figures
are CPU time, which changes less than `wall` on a machine with other work; step times are minima over --runs
steps. Each fit has the slope, intercept and R2 of a straight line, and the exponent and R2 of a power (a line
through the logarithms).
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import commands
import data
import numpy as np
import steps

from mobiledets_tf import files

# The table of the training step varies one of these and keeps the others.
_DEPTH, _IMAGE_SIZE, _BATCH = 0.35, 160, 8
_SEARCH_IMAGE_SIZE, _SEARCH_NETWORKS, _CLASSES = 128, 3, 10
_SETTINGS = {
    "training": {"depth_multiplier": _DEPTH, "image_size": _IMAGE_SIZE, "batch_size": _BATCH},
    "search": {
        "depth_multiplier": _DEPTH,
        "image_size": _SEARCH_IMAGE_SIZE,
        "batch_size": _BATCH,
        "networks": _SEARCH_NETWORKS,
    },
    "evaluation": {"depth_multiplier": _DEPTH, "image_size": _IMAGE_SIZE},
}
_IMAGES = ("200", "1000", "5000")


@dataclasses.dataclass(frozen=True)
class Fit:
    """Columns of a table of which one is fitted as a function of the other.

    Attributes:
      y, x: the columns.
      values: the rows that are fitted.
    """

    y: str
    x: str
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose rows differ in one size.

    Attributes:
      measure: measures one row, given its value and the command-line options.
      fits: columns to fit; their values are the rows of the table.
      together: whether one process measures all rows, which saves most of the tracing; otherwise each row
        has its own, so that memory can be measured.
    """

    measure: Callable[[str, argparse.Namespace], dict[str, float]]
    fits: tuple[Fit, ...]
    together: bool = False

    @property
    def values(self) -> tuple[str, ...]:
        """The rows, each once."""
        return tuple(dict.fromkeys(value for fit in self.fits for value in fit.values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(TABLES), help="tables to measure, separated by commas")
    parser.add_argument("--output", help="JSON file of the result so far")
    parser.add_argument("--work_dir", help="keeps images and records for a further call")
    parser.add_argument("--runs", type=int, default=6, help="timed steps of a row")
    parser.add_argument("--rows", nargs="+", help="internal: table and values that this process measures")
    options = parser.parse_args()
    if options.rows:
        name, *values = options.rows
        for value in values:
            print(json.dumps({"value": value, "row": TABLES[name].measure(value, options)}), flush=True)
        return
    parts = options.parts.split(",")
    if unknown := set(parts) - set(TABLES):
        parser.error(f"--parts={','.join(sorted(unknown))}: allowed are {', '.join(TABLES)}")
    with tempfile.TemporaryDirectory() as temporary:
        options.work_dir = os.path.abspath(options.work_dir or temporary)
        result = resumed(options)
        for name in parts:
            complete(result, name, options, _in_other_process)
    print(json.dumps(result))


def resumed(options: argparse.Namespace) -> dict:
    """Returns the result so far, which has to have the same settings."""
    cores = len(os.sched_getaffinity(0))
    start = {"cores": cores, "runs": options.runs, "settings": _SETTINGS, "tables": {}}
    if options.output is None or not os.path.exists(options.output):
        return start
    result = files.read_json(options.output)
    for key in ("cores", "runs", "settings"):
        if result[key] != start[key]:
            raise SystemExit(f"{options.output!r} has {key} {result[key]}, this call {start[key]}")
    return result


def complete(
    result: dict,
    name: str,
    options: argparse.Namespace,
    measure: Callable[[str, list[str], argparse.Namespace], Iterator[tuple[str, dict[str, float]]]],
) -> None:
    """Measures the missing rows of a table, keeps each at once, and fits the columns."""

    def keep() -> None:
        if options.output is not None:
            files.write_json(options.output, result)

    table = TABLES[name]
    rows = result["tables"].setdefault(name, {"rows": {}, "fits": []})["rows"]
    missing = [value for value in table.values if value not in rows]
    for values in [missing] if table.together and missing else [[value] for value in missing]:
        for value, row in measure(name, values, options):
            rows[value] = row
            print(f"{name} {value}: {row}", file=sys.stderr, flush=True)
            keep()
    result["tables"][name]["fits"] = [
        {"y": each.y, "x": each.x, "rows": list(each.values)}
        | fit([rows[value][each.x] for value in each.values], [rows[value][each.y] for value in each.values])
        for each in table.fits
    ]
    keep()


def _in_other_process(
    name: str, values: list[str], options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields the rows of some values of a table as another process measures them."""
    same = [f"--work_dir={options.work_dir}", f"--runs={options.runs}"]
    command = [sys.executable, __file__, *same, "--rows", name, *values]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith('{"value"'):
                found = json.loads(line)
                yield found["value"], found["row"]
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")


def fit(x: list[float], y: list[float]) -> dict[str, dict[str, float]]:
    """Fits y = intercept + slope * x, and y = factor * x ** exponent through the logarithms.

    Args:
      x, y: positive numbers.

    Returns:
      `line` and `power` with their parameters and `r2`, the share of the variance explained (of the
      logarithms for the power).
    """
    slope, intercept, r2 = _line(np.array(x), np.array(y))
    exponent, offset, power_r2 = _line(np.log(x), np.log(y))
    return {
        "line": {"slope": slope, "intercept": intercept, "r2": r2},
        "power": {"exponent": exponent, "factor": float(np.exp(offset)), "r2": power_r2},
    }


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    slope, intercept = np.polyfit(x, y, 1)
    spread = np.sum((y - y.mean()) ** 2)
    rest = np.sum((y - intercept - slope * x) ** 2)
    return float(slope), float(intercept), float(1 - rest / spread) if spread else 1.0


def _timed(step: Callable[[], object], runs: int) -> dict[str, float]:
    """Returns the times of the first call of a step, which traces, and the least of others, in seconds."""
    times = []
    for _ in range(runs + 2):
        cpu, wall = time.process_time(), time.perf_counter()
        step()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    # The second call still initialises.
    cpu, wall = (min(column) for column in zip(*times[2:], strict=True))
    return {"first_step_cpu_s": times[0][0], "step_cpu_s": cpu, "step_wall_s": wall}


# --- training -----------------------------------------------------------------------------


def _size(depth: str = str(_DEPTH), image_size: str = str(_IMAGE_SIZE), batch: str = str(_BATCH)) -> str:
    return f"{depth} {image_size} {batch}"


def _training(value: str, options: argparse.Namespace) -> dict[str, float]:
    from mobiledets_tf import api
    from mobiledets_tf.compat import keras

    depth, image_size, batch = (
        kind(word) for kind, word in zip((float, int, int), value.split(), strict=True)
    )
    # Images as large as the largest input, so that all rows read the same files.
    records = steps.sample(Path(options.work_dir) / "training", 64, 320)
    keras.utils.set_random_seed(0)
    config = steps.config(
        records,
        architecture="edgetpu",
        depth_multiplier=depth,
        image_size=(image_size, image_size),
        batch_size=batch,
    )
    model = steps.model(config)
    features, labels = next(steps.batches(config, model))
    step = steps.training_step(model, config)
    times = _timed(lambda: float(step(features, labels)), options.runs)
    figures = api.describe("edgetpu", _CLASSES, image_size, depth)
    return {
        "depth_multiplier": depth,
        "image_size": image_size,
        "pixels": image_size**2,
        "batch_size": batch,
        "params": figures["params"],
        "batch_madds": figures["madds"] * batch,
        **times,
    }


# --- search -------------------------------------------------------------------------------


def _search(value: str, options: argparse.Namespace) -> dict[str, float]:
    from mobiledets_tf import search_space
    from mobiledets_tf.search.step import build_step, set_seed

    set_seed(0)
    # Networks of the smallest space are in every other one as well, so that all rows run the same networks.
    smallest = search_space.get_space("ibn", (3,), depth_multiplier=_DEPTH)
    rng = np.random.default_rng(0)
    networks = [
        search_space.decode(smallest, search_space.sample(smallest, rng)) for _ in range(_SEARCH_NETWORKS)
    ]
    name, _, kernels = value.partition(" ")
    space = search_space.get_space(name, tuple(map(int, kernels.split(","))), depth_multiplier=_DEPTH)
    start = time.process_time()
    shared, _ = build_step(space, (_SEARCH_IMAGE_SIZE,) * 2, _CLASSES)
    build_s = time.process_time() - start
    batch = steps.noise(_BATCH, _SEARCH_IMAGE_SIZE, _CLASSES)
    rows = []
    for network in networks:
        decisions = search_space.encode(space, network)
        rows.append(_timed(lambda d=decisions: shared.train([batch], [d], 0.01), options.runs))
    memory, counts = steps.peak_memory_mib(), _space_counts(space, shared.supernet)
    return {
        **counts,
        "build_cpu_s": build_s,
        # Only the first network's first step traces.
        "first_step_cpu_s": rows[0]["first_step_cpu_s"],
        "step_cpu_s": float(np.mean([row["step_cpu_s"] for row in rows])),
        "step_wall_s": float(np.mean([row["step_wall_s"] for row in rows])),
        "memory_mib": memory,
        "other_memory_mib": memory - counts["weights_mib"],
    }


def _space_counts(space, supernet) -> dict[str, float]:
    """Returns the size of a space and of its supernet.

    A layer has as many branches as its options have different chains of operations; kernel sizes and
    expansions are only shapes. Each weight has its momentum beside it.
    """
    from mobiledets_tf.models.position_function import Structure

    layers, weights = supernet.layers, sum(int(np.prod(bank.rows.shape)) for bank in supernet.banks)
    structures = [Structure.of(layer.plan, layer.layer.residual, static=False) for layer in layers]
    return {
        "log10_networks": float(np.log10(float(space.size))),
        "options": sum(len(layer.op.choices) for block in space.blocks for layer in block.layers),
        "branches": sum(len(structure.chains) for structure in structures),
        "shared_weights": weights,
        "weights_mib": 2 * 4 * weights / 2**20,
    }


# --- images -------------------------------------------------------------------------------


def _images(work: Path, images: int) -> Path:
    folder = work / f"images_{images}"
    if not (folder / "instances_train.json").exists():
        data.make(folder, images)
    return folder


def _data(mode: str, images: int, options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        source = _images(Path(options.work_dir), images)
        return _usage(images, *data.run(mode, source, Path(temporary) / "records"))


def _evaluation(value: str, options: argparse.Namespace) -> dict[str, float]:
    work = Path(options.work_dir)
    records, model = work / f"records_{value}", work / "model"
    if not records.exists():
        data.run("convert", _images(work, int(value)), records)
    if not model.exists():
        arguments = [
            "--architecture=edgetpu",
            f"--depth_multiplier={_DEPTH}",
            f"--image_size={_IMAGE_SIZE}",
            f"--train_data={records}",
            f"--model_dir={model}",
        ]
        commands.run("train", *arguments, "--mode=train", "--steps=1", "--batch_size=4")
    evaluated = [f"--model_dir={model}", "--mode=eval", f"--eval_data={records}/train-*"]
    return _usage(int(value), *commands.usage("train", *evaluated))


def _usage(images: int, wall: float, cpu: float, memory: float) -> dict[str, float]:
    return {"images": images, "cpu_s": cpu, "wall_s": wall, "memory_mib": memory}


_WIDTHS = tuple(_size(depth=depth) for depth in ("0.25", "0.35", "0.5", "1.0"))
_SIZES = tuple(_size(image_size=side) for side in ("96", "160", "224", "320"))
_BATCHES = tuple(_size(batch=batch) for batch in ("4", "8", "16", "32"))
_SPACES = tuple(f"{name} {k}" for name in ("ibn", "ibn_fused", "ibn_fused_tucker") for k in ("3", "3,5"))
_BY_IMAGES = (Fit("cpu_s", "images", _IMAGES), Fit("memory_mib", "images", _IMAGES))
TABLES = {
    "search": Table(
        _search,
        (
            Fit("step_cpu_s", "options", _SPACES),
            Fit("first_step_cpu_s", "branches", _SPACES),
            Fit("memory_mib", "shared_weights", _SPACES),
            Fit("other_memory_mib", "branches", _SPACES),
        ),
    ),
    "check": Table(lambda value, options: _data("check", int(value), options), _BY_IMAGES),
    "convert": Table(lambda value, options: _data("convert", int(value), options), _BY_IMAGES),
    "training": Table(
        _training,
        (
            Fit("step_cpu_s", "depth_multiplier", _WIDTHS),
            Fit("step_cpu_s", "batch_madds", _WIDTHS),
            Fit("step_cpu_s", "pixels", _SIZES),
            Fit("step_cpu_s", "batch_size", _BATCHES),
            Fit("step_cpu_s", "batch_madds", tuple(dict.fromkeys((*_WIDTHS, *_SIZES, *_BATCHES)))),
        ),
        together=True,
    ),
    "evaluation": Table(_evaluation, _BY_IMAGES),
}


if __name__ == "__main__":
    main()
