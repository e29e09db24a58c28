"""Plan of the study: sizes, units, their results in a folder, and the loop that runs them."""

import contextlib
import dataclasses
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SPACES = ("ibn", "ibn_fused", "ibn_fused_tucker")
COSTS = ("madds", "hexagon", "ethos_u", "host_cpu")
# Costs that are measured, and would be wrong if other work ran at the same time.
QUIET = ("host_cpu",)
BAND = 0.03
# Exit code of a command that was interrupted and has saved its state.
INTERRUPTED = 130
_WAIT_S = 10.0


@dataclasses.dataclass(frozen=True)
class Scale:
    """Sizes of a study.

    Attributes:
      image_size, depth_multiplier: settings of every network.
      images, val_images: numbers of images in the drawn sample.
      networks: number of measured networks that a latency model is fitted to.
      targets: costs of the networks, as fractions of the cost of the published `edgetpu`.
      searches, trainings: numbers of seeds.
      steps, finalists, finalist_steps: settings of a search.
      train_steps, batch_size, learning_rate: settings of stand-alone training.
    """

    image_size: int
    depth_multiplier: float
    images: int
    val_images: int
    networks: int
    targets: tuple[float, ...]
    searches: int
    trainings: int
    steps: int
    finalists: int
    finalist_steps: int
    train_steps: int
    batch_size: int
    learning_rate: float = 0.1


SCALES = {
    "small": Scale(160, 0.35, 4000, 1000, 200, (0.75, 1.0), 1, 2, 240, 2, 200, 800, 16),
    "full": Scale(320, 1.0, 20000, 2000, 600, (0.5, 0.75, 1.0), 2, 3, 2000, 4, 1000, 10000, 32),
}

# Seconds on one core at the small scale: a step of stand-alone training, a step of the shared weights with
# its share of measured qualities, the start of a command with its evaluation, and one network on a device.
ALONE_S, SHARED_S, START_S, NETWORK_S = 0.24, 0.74, 60, 1.0
KNOWN = 4


@dataclasses.dataclass(frozen=True)
class Unit:
    """A piece of work with one result.

    Attributes:
      kind: `data`, `model`, `published`, `search`, `train` or `time`.
      id: kind and subject, such as `search/found-hexagon-ibn-0.75-0`; names its file and folder.
      needs: ids of the units that must be finished first.
      settings: settings of the unit, by name.
    """

    kind: str
    id: str
    needs: tuple[str, ...]
    settings: dict[str, Any]


def plan(scale: Scale, costs: tuple[str, ...], spaces: tuple[str, ...], data: dict[str, str]) -> list[Unit]:
    """Returns all units, each after the units that it depends on.

    Args:
      scale: sizes.
      costs: subset of `COSTS`.
      spaces: subset of `SPACES`.
      data: the user's folders in COCO format by name.
    """
    from mobiledets_tf import architecture

    units: list[Unit] = []
    quiet: tuple[str, ...] = ()

    def add(kind: str, about: str, *needs: str, **settings: Any) -> str:
        units.append(Unit(kind, f"{kind}/{about}", tuple(dict.fromkeys((*quiet, *needs))), settings))
        return units[-1].id

    def times(cost: str, networks: dict[str, str], *needs: str) -> dict[str, str]:
        """Adds units that time networks; `networks` maps each network to the unit that makes it."""
        nonlocal quiet
        found = {}
        for network, maker in networks.items():
            found[network] = add("time", f"{network}/{cost}", maker, *needs, network=network, cost=cost)
            quiet = (found[network],) if cost in QUIET else quiet
        return found

    names = [f"published-{name}" for name in architecture.PUBLISHED]
    published = {name: add("published", name, name=name.removeprefix("published-")) for name in names}
    models, reference = {}, {}
    # Quiet costs come first: each of their units depends on the previous one, all others on the last one.
    for cost in sorted(costs, key=lambda cost: cost not in QUIET):
        for space in spaces:
            models[cost, space] = add("model", f"{cost}-{space}", cost=cost, space=space)
            quiet = (models[cost, space],) if cost in QUIET else quiet
        reference[cost] = times(cost, published)["published-edgetpu"]
    records = {name: add("data", name, source=source) for name, source in {"drawn": "", **data}.items()}
    found = {}
    for seed in range(scale.searches):
        for target in scale.targets:
            for cost in costs:
                for space in spaces:
                    name = f"found-{cost}-{space}-{target:g}-{seed}"
                    found[name] = add(
                        "search",
                        name,
                        records["drawn"],
                        models[cost, space],
                        reference[cost],
                        cost=cost,
                        space=space,
                        target=target,
                        seed=seed,
                    )
    for set_name, at in records.items():
        for seed in range(scale.trainings):
            for name, maker in (published | found).items():
                add("train", f"{set_name}/{name}/{seed}", maker, at, data=set_name, network=name, seed=seed)
    for cost in sorted(costs, key=lambda cost: cost in QUIET):
        # Nothing else may run while this machine's CPU is measured.
        times(cost, found, *((unit.id for unit in units) if cost in QUIET else ()))
    return units


def seconds(units: list[Unit], scale: Scale) -> float:
    """Returns the expected duration of units on one core; valid only for the small scale."""
    left = KNOWN + scale.finalists
    trainings = left
    while left > 2:
        left = -(-left // 2)
        # The best known network is trained further even if it was eliminated.
        trainings += left + 1
    each = {
        "data": START_S,
        "model": START_S + scale.networks * NETWORK_S,
        "published": 0,
        "search": START_S + scale.steps * SHARED_S + trainings * scale.finalist_steps * ALONE_S,
        "train": START_S + scale.train_steps * ALONE_S,
        "time": 5 * NETWORK_S,
    }
    exact = [unit for unit in units if unit.kind == "model" and unit.settings["cost"] == "madds"]
    return sum(each[unit.kind] for unit in units) - len(exact) * scale.networks * NETWORK_S


class Results:
    """Finished units in a work folder: a JSON file for each, and a lock for each running unit.

    Args:
      work_dir: folder of the study.
    """

    def __init__(self, work_dir: str | Path):
        self.work_dir = Path(work_dir)

    def path(self, unit: str) -> Path:
        """Returns the file of a finished unit."""
        return self.work_dir / "units" / f"{unit.replace('/', '__')}.json"

    def folder(self, unit: str) -> Path:
        """Returns the folder that a unit may write into."""
        return self.work_dir / unit

    def done(self, unit: str) -> bool:
        return self.path(unit).exists()

    def read(self, unit: str) -> dict[str, Any]:
        from mobiledets_tf.files import read_json

        return read_json(self.path(unit), "unit of a study")

    def write(self, unit: Unit, result: dict[str, Any]) -> None:
        from mobiledets_tf.files import write_artefact

        write_artefact(self.path(unit.id), {"unit": unit.id, **unit.settings, "result": result})

    @contextlib.contextmanager
    def lock(self, unit: str) -> Iterator[bool]:
        """Locks a unit; yields False if another process runs it.

        The lock is released when its process and all commands that it started have ended; commands may
        outlive the process.
        """
        path = self.work_dir / "locks" / f"{unit.replace('/', '__')}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            os.set_inheritable(file.fileno(), True)
            yield True


def work(
    units: list[Unit],
    results: Results,
    run: Callable[[Unit], dict[str, Any]],
    only: tuple[str, ...] = (),
    wait_s: float = _WAIT_S,
) -> dict[str, str]:
    """Runs all unfinished units in order, until none can be run.

    Args:
      units: the plan.
      results: the results of the study.
      run: runs a unit; returns its result, or raises CalledProcessError or InputError.
      only: beginnings of ids to run; empty for all.
      wait_s: seconds to wait while other processes run units.

    Returns:
      Maps the id of each unfinished unit to the reason; empty if all are finished.

    Raises:
      KeyboardInterrupt: a command was interrupted.
    """
    from mobiledets_tf.errors import InputError

    failed: dict[str, str] = {}
    wanted = [unit for unit in units if not only or unit.id.startswith(only)]
    while True:
        open_units = [unit for unit in wanted if not results.done(unit.id) and unit.id not in failed]
        ready = [unit for unit in open_units if all(results.done(need) for need in unit.needs)]
        for unit in ready:
            with results.lock(unit.id) as mine:
                if not mine or results.done(unit.id):
                    continue
                print(f"{time.strftime('%H:%M:%S')} {unit.id}", file=sys.stderr, flush=True)
                start = time.monotonic()
                try:
                    result = run(unit)
                    results.write(unit, {"seconds": time.monotonic() - start} | result)
                except (subprocess.CalledProcessError, InputError, OSError) as error:
                    if getattr(error, "returncode", None) == INTERRUPTED:
                        raise KeyboardInterrupt from error
                    failed[unit.id] = str(error)
                    print(f"{unit.id} failed: {error}", file=sys.stderr, flush=True)
            break
        else:
            if not open_units or not _others_work(units, results):
                return failed | {unit.id: _missing(unit, results) for unit in open_units}
            time.sleep(wait_s)


def _others_work(units: list[Unit], results: Results) -> bool:
    for unit in units:
        if not results.done(unit.id):
            with results.lock(unit.id) as mine:
                if not mine:
                    return True
    return False


def _missing(unit: Unit, results: Results) -> str:
    missing = [need for need in unit.needs if not results.done(need)]
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"depends on unfinished units: {', '.join(missing[:3])}{more}"
