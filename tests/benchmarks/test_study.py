"""The study on planted units: its plan, its resumption, its tables and its page; no network is trained."""

import json
import math
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCALE_COSTS = ("madds", "hexagon", "host_cpu")


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def study_plan():
    import study_plan

    return study_plan


@pytest.fixture
def units(study_plan):
    return study_plan.plan(study_plan.SCALES["small"], SCALE_COSTS, study_plan.SPACES, {"helmets": "/h"})


class Planted:
    """Runs a unit by making up its result.

    On hexagon each step up in spaces gains 0.05 AP, elsewhere nothing; a second training has 0.01 more. A
    network costs its target where it was found for and 1.2 of it elsewhere.
    """

    def __init__(self, folder: Path):
        self.folder, self.ran = folder, []

    def run(self, unit):
        self.ran.append(unit.id)
        return getattr(self, f"_{unit.kind}")(**unit.settings)

    def _data(self, source):
        return {"classes": 2, "records": source}

    def _model(self, cost, space):
        whole = {
            "n": 200,
            "r2": 0.98,
            "spearman": 0.97,
            "mean_abs_pct_error": 2.5,
            "worst_abs_pct_error": 9.0,
        }
        return {"model": "m", "held_out": None if cost == "madds" else {"whole_space": whole}}

    def _published(self, name):
        return {"architecture": self._file(name)}

    def _file(self, name):
        from mobiledets_tf import architecture

        path = self.folder / f"{name}.json"
        architecture.save(architecture.load("edgetpu" if "found" in name else name), path)
        return str(path)

    def _search(self, cost, space, target, seed):
        error = {
            "n": 16,
            "r2": None,
            "spearman": 0.5,
            "mean_abs_pct_error": 4.0,
            "worst_abs_pct_error": 8.0,
            "mean_pct_error": -3.0,
        }
        return {
            "architecture": self._file(f"found-{cost}-{space}-{target:g}-{seed}"),
            "search_s": 600.0,
            "reliability": {"tau": 0.5},
            "target": 10 * target,
            "source": "population",
            "certainty": 0.8,
            "against_known": {"is_found": False, "certainty": 0.9},
            "model_error": error if cost == "hexagon" else None,
            "population": [],
        }

    def _train(self, data, network, seed):
        if network.startswith("published"):
            return {"AP": 0.4, "AP50": 0.6}
        _, cost, space, target, _ = network.split("-")
        step = ["ibn", "ibn_fused", "ibn_fused_tucker"].index(space)
        gain = 0.05 * step if cost == "hexagon" else 0.0
        # A little of its own for each target, so that intervals have a width.
        return {"AP": 0.4 + 0.1 * float(target) + gain * (1 + 0.1 * float(target)) + 0.01 * seed, "AP50": 0.6}

    def _time(self, network, cost):
        target = 1.0 if network.startswith("published") else float(network.split("-")[3])
        ratio = 1.0 if f"-{cost}-" in network else 1.2
        kind = {"madds": "exact", "hexagon": "simulated", "host_cpu": "measured"}[cost]
        return {"cost": 10 * target * ratio, "kind": kind, "params": 5, "madds": 7}


def test_a_plan_measures_this_machine_while_nothing_else_runs(units):
    ids = [unit.id for unit in units]
    assert len(ids) == len(set(ids))
    seen, needs = set(), {unit.id: set(unit.needs) for unit in units}
    for unit in units:
        assert needs[unit.id] <= seen, unit.id
        seen.add(unit.id)

    def all_needs(unit):
        found = set(needs[unit])
        for need in needs[unit]:
            found |= all_needs(need)
        return found

    quiet = [unit.id for unit in units if unit.settings.get("cost") == "host_cpu" and unit.kind != "search"]
    other = [unit.id for unit in units if unit.id not in quiet and unit.kind != "published"]
    # Of a quiet unit and any other one, one needs the other, so that they never run at the same time.
    before = {unit: all_needs(unit) for unit in (*quiet, *other)}
    assert len(quiet) == 3 + 4 + 18
    for unit in quiet:
        assert all(one in before[unit] or unit in before[one] for one in (*quiet, *other) if one != unit)
    searches = [unit for unit in units if unit.kind == "search"]
    assert len(searches) == 3 * 3 * 2 and len([u for u in units if u.kind == "train"]) == 22 * 2 * 2


def test_expected_hours_are_those_of_the_help(study_plan):
    scale = study_plan.SCALES["small"]
    units = study_plan.plan(scale, ("madds",), ("ibn",), {})
    # Two searches: rungs of 6, 3 and 2, the last two with the best known one; ten trainings; 6 times.
    search = 60 + scale.steps * study_plan.SHARED_S + 13 * scale.finalist_steps * study_plan.ALONE_S
    train = 60 + scale.train_steps * study_plan.ALONE_S
    assert study_plan.seconds(units, scale) == pytest.approx(2 * search + 12 * train + 6 * 5 + 60 + 60)
    line = [sys.executable, str(BENCHMARKS / "study.py"), "--help"]
    text = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    whole = study_plan.plan(scale, study_plan.COSTS, study_plan.SPACES, {})
    assert f"{study_plan.seconds(whole, scale) / 3600:.0f} core hours" in " ".join(text.split())


def test_a_study_resumes_and_runs_nothing_twice(study_plan, units, tmp_path):
    results, runner = study_plan.Results(tmp_path), Planted(tmp_path)
    calls = iter(range(1000))

    def stopped(unit):
        if next(calls) == 40:
            raise KeyboardInterrupt
        return runner.run(unit)

    with pytest.raises(KeyboardInterrupt):
        study_plan.work(units, results, stopped)
    assert len(runner.ran) == 40
    # Two workers share what is left.
    workers = [
        threading.Thread(
            target=study_plan.work,
            args=(units, study_plan.Results(tmp_path), runner.run),
            kwargs={"wait_s": 0.01},
        )
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(runner.ran) == sorted(unit.id for unit in units)
    assert study_plan.work(units, results, runner.run) == {} and len(runner.ran) == len(units)
    row = json.loads(results.path("search/found-hexagon-ibn-0.75-0").read_text())
    assert row["cost"] == "hexagon" and row["result"]["target"] == 7.5 and row["result"]["seconds"] >= 0


def test_an_interrupted_command_ends_the_study(study_plan, units, tmp_path):
    def interrupted(unit):
        raise subprocess.CalledProcessError(130, ["search"])

    with pytest.raises(KeyboardInterrupt):
        study_plan.work(units, study_plan.Results(tmp_path), interrupted)


def test_a_failure_holds_up_only_what_needs_it(study_plan, units, tmp_path):
    results, runner = study_plan.Results(tmp_path), Planted(tmp_path)
    broken = "search/found-hexagon-ibn-0.75-0"

    def run(unit):
        if unit.id == broken:
            raise subprocess.CalledProcessError(1, ["search"])
        return runner.run(unit)

    failed = study_plan.work(units, results, run)
    assert "exit status 1" in failed.pop(broken)
    # Times of this machine's CPU wait for all other units.
    assert all("found-hexagon-ibn-0.75-0" in unit or unit.endswith("/host_cpu") for unit in failed)
    assert all(reason.startswith("depends on unfinished units: ") for reason in failed.values())
    assert study_plan.work(units, results, runner.run, ("search",)) == {}
    assert runner.ran[-1] == broken


def test_a_search_without_a_network_is_finished_and_said(study_plan, tmp_path, monkeypatch):
    import study_units

    from mobiledets_tf import latency, search_space

    results, scale = study_plan.Results(tmp_path), study_plan.SCALES["small"]
    space = search_space.get_space("ibn", depth_multiplier=scale.depth_multiplier)
    latency.save(latency.madds_model(space, scale.image_size, 10), tmp_path / "model.json")
    runner, lines = study_units.Runner(results, scale, "small"), []

    def stopped(*arguments):
        lines.append(arguments)
        raise subprocess.CalledProcessError(130, ["search"])

    monkeypatch.setattr(study_units, "run", stopped)
    units = study_plan.plan(scale, ("madds",), ("ibn",), {})
    planted, first = Planted(tmp_path), ("published", "model", "time/published", "data")
    monkeypatch.setattr(planted, "_model", lambda **_: {"model": str(tmp_path / "model.json")})
    assert study_plan.work(units, results, planted.run, first) == {}
    (search, other) = [unit for unit in units if unit.kind == "search"]
    # A planted `edgetpu` costs 12 multiply-adds.
    result = runner.run(search)
    assert "no network of space 'ibn' has a cost within 3.0% of 9 madds" in result["failed"] and not lines
    results.write(search, result)
    (train, *_) = [unit for unit in units if unit.kind == "train" and search.id in unit.needs]
    assert runner.run(train) == {"failed": "its search found no network"}

    (reference,) = [unit for unit in units if unit.id == "time/published-edgetpu/madds"]
    results.write(reference, {"cost": 6e7})
    with pytest.raises(subprocess.CalledProcessError):
        runner.run(other)
    assert "--latency_target=60000000.0" in lines[0] and f"--latency_band={study_plan.BAND}" in lines[0]


def test_a_lock_outlives_a_killed_study_with_its_command(study_plan, tmp_path):
    """The command that a killed study leaves behind still writes into the unit's folder."""
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import commands, study_plan, os\n"
        "with study_plan.Results(sys.argv[2]).lock('search/a'):\n"
        "    line = 'import sys, time; print(1, file=sys.stderr, flush=True); sys.stdin.read()'\n"
        "    commands.call('-c', line)\n"
    )
    line = [sys.executable, "-c", code, str(BENCHMARKS), str(tmp_path)]
    study = subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while study.stderr.readline() != "1\n":
        assert study.poll() is None
    study.kill()
    study.wait()
    results = study_plan.Results(tmp_path)
    with results.lock("search/a") as mine:
        assert not mine
    study.stdin.close()
    assert study.stderr.read() is not None  # Ends when the command has.
    with results.lock("search/a") as mine:
        assert mine


@pytest.fixture
def finished(study_plan, units, tmp_path):
    results = study_plan.Results(tmp_path)
    assert study_plan.work(units, results, Planted(tmp_path).run) == {}
    return results


def test_gains_are_paired_and_have_their_interval(units, finished):
    import study_tables

    table, findings = study_tables.gains(study_tables.Figures(units, finished))
    rows = {row[:4]: row for row in table.rows}
    # Two trainings with the same difference: an interval of no width, by hand 0.05 * (1 + 0.075).
    assert rows["helmets", "hexagon (simulated)", "ibn_fused", "0.75, search 0"][5] == "0.054 [0.054, 0.054]"
    # Over two targets: 0.05375 and 0.055, t of one degree of freedom is 12.706.
    half = 12.7062 * 0.00125 / 2
    low, high = 0.054375 - half, 0.054375 + half
    assert rows["drawn", "hexagon (simulated)", "ibn_fused", "all"][5] == f"0.054 [{low:.3f}, {high:.3f}]"
    (finding,) = [f for f in findings if f.subject.startswith("drawn, hexagon") and "tucker" in f.subject]
    assert finding.is_decided and finding.expected and finding.figure["mean"] == pytest.approx(0.10875)
    assert ": AP +0.109 [+0.093, +0.125], 2 pairs; the claim expects more." in finding.sentence
    others = [f for f in findings if "hexagon" not in f.subject]
    assert others and all(f.figure["mean"] == 0 and not f.is_decided and not f.expected for f in others)


def test_transfer_compares_at_no_more_time(units, finished):
    import study_tables

    table, findings = study_tables.transfer(study_tables.Figures(units, finished))
    rows = {row[:3]: row[3:] for row in table.rows}
    # 9 and 12 ms on hexagon against 7.5 and 10 of its own: the first is compared with the own one of 7.5,
    # which has the same target, because 10 is more than 3 % above 9.
    ratio, gain, compared = rows["drawn", "madds (exact)", "hexagon (simulated)"]
    assert (ratio, compared) == ("1.20", "6 of 6")
    gains = [0.05 * step * (1 + 0.1 * target) for step in range(3) for target in (0.75, 1.0)]
    assert gain.startswith(f"{sum(gains) / 6:.3f} [")
    assert rows["drawn", "hexagon (simulated)", "madds (exact)"][1].startswith("-0.0")
    assert len(findings) == 2 * 6 and all(finding.expected for finding in findings)


def test_a_single_value_has_no_interval():
    import intervals

    assert intervals.mean([]) is None and intervals.mean([0.5])["interval"] is None
    low, high = intervals.mean([1.0, 2.0, 3.0])["interval"]
    assert (low + high) / 2 == pytest.approx(2)
    assert high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)


def test_the_page_says_everything_and_needs_nothing(study_plan, units, finished, tmp_path):
    import study_report

    (finished.work_dir / "settings.json").write_text(json.dumps({"scale": "small", "image_size": 160}))
    page = study_report.write(units, finished, "small", "python benchmarks/study.py --data='<b>'")
    html, markdown = page.read_text(), (tmp_path / "report.md").read_text()
    assert "<b>" not in html and not re.search(r'(src|href)="(?!data:)', html)
    assert html.count("data:image/png") == 1 + math.ceil(18 / 4)
    for words in ("hexagon (simulated)", "host_cpu (measured)", "madds (exact)", "--data=", "expects more"):
        assert words in html and words in markdown
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["finished"] == report["units"] == len(units)
    assert any("expects more" in line for line in report["seen"])
    (searches,) = [table for table in report["tables"] if table["title"] == "Searches"]
    # By AP alone the largest space is first; the published networks cost 1.2 of the target 1.
    ranks = {row[0]: row[-1] for row in searches["rows"]}
    assert ranks["found-hexagon-ibn_fused_tucker-1-0"] == "1 of 3"
    assert ranks["found-hexagon-ibn-1-0"] == "3 of 3"
    (models,) = [table for table in report["tables"] if table["title"].startswith("Latency models")]
    assert sum("population of" in row[2] for row in models["rows"]) == 6
    assert models["rows"][-1][3:] == ["16", "-", "0.500", "4.0 %", "8.0 %", "-3.0 %"]


def test_an_unfinished_study_says_what_is_missing(study_plan, units, tmp_path):
    import study_report

    results = study_plan.Results(tmp_path)
    study_plan.work(units, results, Planted(tmp_path).run, ("model", "published", "time/published", "data"))
    (tmp_path / "settings.json").write_text(json.dumps({"scale": "small", "image_size": 160}))
    study_report.write(units, results, "small", "x")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["seen"] == ["None yet: every interval contains 0."]
    assert f"{len(units) - report['finished']} of {len(units)} units are not finished." in report["not_seen"]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--costs=hexagn", "did you mean 'hexagon'"),
        ("--spaces=all", "allowed: ibn, ibn_fused"),
        ("--data=absent", "--data=absent is not a folder"),
    ],
)
def test_wrong_flags_are_named(tmp_path, flag, words):
    line = [sys.executable, str(BENCHMARKS / "study.py"), f"--work_dir={tmp_path / 'study'}", flag]
    found = subprocess.run(line, capture_output=True, text=True)
    assert found.returncode == 2 and words in found.stderr and not (tmp_path / "study").exists()
