"""Tests the claim of MobileDets on accelerators, with latency and accuracy.

The claim: networks with full convolutions are better on accelerators than networks of inverted bottlenecks
alone, and a network found for one device is not the best on another. For each cost (multiply-adds, and the
latency on each device), each search space and each target, the study searches a network. Targets are
fractions of the cost of the published `edgetpu`, the same for all spaces. The networks found and the
published ones are trained alone with several seeds, on the drawn sample and on each --data, and timed on
every device.

  python benchmarks/study.py --work_dir=study --scale=small
  python benchmarks/study.py --work_dir=study --scale=small --report_only

The work consists of units. Each writes one JSON file when it is finished, so the command can be stopped at
any time and rerun, and several commands may run at once in one folder, for instance one per core:

  taskset -c 0 python benchmarks/study.py --work_dir=study &
  taskset -c 1 python benchmarks/study.py --work_dir=study

Units that measure this machine's CPU run one at a time while no other unit runs: those for its latency
models first, those for the networks found last. A unit that fails is named at the end and rerun by the next
call; a search whose latency band contains no network counts as finished, and the report says so. Finally the
command writes index.html, report.md and report.json. With --report_only it runs no unit and writes these
files from the finished units.

--scale=small (160 pixels, depth multiplier 0.35, one search and two trainings for each target) takes about
{small:.0f} core hours with the default costs and without --data, half as long on two cores. This is computed
from times measured on one core of a two-core machine: {alone} s for a step of stand-alone training,
{shared} s for a step of the shared weights. Each --data folder adds {more:.0f} hours. --scale=full (320
pixels, depth multiplier 1) is meant for a GPU and was not timed.
"""

import argparse
import dataclasses
import json
import sys
from typing import NoReturn

import study_plan
from study_plan import COSTS, SCALES, SPACES, Results, Scale, plan, work


def parse() -> argparse.Namespace:
    small = SCALES["small"]
    units = (plan(small, COSTS, SPACES, data) for data in ({}, {"more": ""}))
    hours, with_data = (study_plan.seconds(found, small) / 3600 for found in units)
    words = __doc__.format(
        small=hours, more=with_data - hours, alone=study_plan.ALONE_S, shared=study_plan.SHARED_S
    )
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work_dir", default="study", help="folder for all files; resumes a study in it")
    parser.add_argument("--scale", choices=SCALES, default="small", help="sizes of the study; see above")
    parser.add_argument("--costs", default=",".join(COSTS), help="costs, separated by commas")
    parser.add_argument("--spaces", default=",".join(SPACES), help="search spaces, separated by commas")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="FOLDER",
        help="folder in COCO format to train on, too; repeatable",
    )
    parser.add_argument(
        "--only", default="", help="run only units whose ids begin with these, separated by commas"
    )
    parser.add_argument("--list", action="store_true", help="print the units and whether they are finished")
    parser.add_argument("--report_only", action="store_true", help="only write the report")
    parser.add_argument("--measure", nargs=2, metavar=("COST", "NETWORK"), help=argparse.SUPPRESS)
    return parser.parse_args()


def stop(reason: str) -> NoReturn:
    """Ends the command because of wrong input."""
    print(reason, file=sys.stderr)
    sys.exit(2)


def choices(text: str, allowed: tuple[str, ...], flag: str) -> tuple[str, ...]:
    """Returns the names in a comma-separated list; exits with code 2 if one is not allowed."""
    from mobiledets_tf.errors import nearest

    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in allowed:
            stop(f"--{flag}={text}: unknown {name!r}{nearest(name, allowed)}; allowed: {', '.join(allowed)}")
    return names


def main() -> None:
    options = parse()
    import study_units

    scale = SCALES[options.scale]
    if options.measure:
        print(json.dumps(study_units.measure(*options.measure, scale)))
        return
    costs, spaces = (choices(getattr(options, n), a, n) for n, a in (("costs", COSTS), ("spaces", SPACES)))
    units = plan(scale, costs, spaces, study_units.named(options.data))
    results = Results(options.work_dir)
    keep_settings(results, options.scale, scale)
    if options.list:
        print("\n".join(f"{'done' if results.done(unit.id) else 'open'} {unit.id}" for unit in units))
        return
    failed: dict[str, str] = {}
    if not options.report_only:
        runner = study_units.Runner(results, scale, options.scale)
        failed = work(units, results, runner.run, tuple(filter(None, options.only.split(","))))
    import study_report

    page = study_report.write(units, results, options.scale, study_units.command_line())
    done = sum(results.done(unit.id) for unit in units)
    print(f"{done} of {len(units)} units are finished: {page}")
    for unit, reason in failed.items():
        print(f"not finished: {unit}: {reason}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def keep_settings(results: Results, name: str, scale: Scale) -> None:
    """Writes the sizes of a study; exits with code 2 if its folder was started with other sizes."""
    from mobiledets_tf.files import read_json, write_json

    path = results.work_dir / "settings.json"
    settings = json.loads(json.dumps({"scale": name} | dataclasses.asdict(scale)))
    if path.exists() and (before := read_json(path, "settings of a study")) != settings:
        changed = [key for key in settings if before.get(key) != settings[key]]
        stop(f"--work_dir={results.work_dir} was started with other {', '.join(changed)}; use another folder")
    write_json(path, settings)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume", file=sys.stderr)
        sys.exit(study_plan.INTERRUPTED)
