"""Figures of the study: the results of its finished units, as plain tables with intervals.

An interval is a 95 % interval by Student's t over the values that its table names. A network that one search
found is one random draw: an interval over trainings does not include the variation between searches, and one
over targets and searches treats each of them as an independent draw of both the search and its trainings.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import intervals
from study_plan import BAND, Results, Unit

FEWEST = "ibn"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
      title, words: heading, and explanation of the figures.
      columns, rows: header and cells.
    """

    title: str
    words: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One comparison that tests the claim.

    Attributes:
      subject: beginning of the sentence, up to the figure.
      figure: mean difference of AP with its interval; see `intervals.mean`.
      expected: whether the claim expects the difference to be above 0.
    """

    subject: str
    figure: dict[str, Any]
    expected: bool

    @property
    def is_decided(self) -> bool:
        interval = self.figure["interval"]
        return interval is not None and (interval[0] > 0 or interval[1] < 0)

    @property
    def sentence(self) -> str:
        claim = "expects more" if self.expected else "does not expect more"
        return f"{self.subject} AP {shown(self.figure, '+.3f')}, {self.figure['n']} pairs; the claim {claim}."


class Figures:
    """Results of the finished units, by network, cost and data set.

    Args:
      units: the plan.
      results: the work folder.
    """

    def __init__(self, units: Sequence[Unit], results: Results):
        self.units, self.finished = list(units), 0
        self.searches: dict[str, dict[str, Any]] = {}
        self.about: dict[str, dict[str, Any]] = {}
        self.networks: dict[str, str] = {}
        self.models: dict[tuple[str, str], dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        self._ap: dict[tuple[str, str], dict[int, float]] = {}
        self._costs: dict[tuple[str, str], dict[str, Any]] = {}
        for unit in self.units:
            if results.done(unit.id):
                self.finished += 1
                self._add(unit, results.read(unit.id)["result"])
        names = {unit.settings["cost"]: None for unit in self.units if unit.kind == "time"}
        self.costs = list(names)
        self.data = [unit.id.split("/", 1)[1] for unit in self.units if unit.kind == "data"]
        self.spaces = list({u.settings["space"]: None for u in self.units if u.kind == "search"})

    def _add(self, unit: Unit, result: dict[str, Any]) -> None:
        about, name = unit.settings, unit.id.split("/", 1)[1]
        if "failed" in result:
            self.failed[unit.id] = result["failed"]
        elif unit.kind == "train":
            self._ap.setdefault((about["data"], about["network"]), {})[about["seed"]] = result["AP"]
        elif unit.kind == "time":
            self._costs[about["network"], about["cost"]] = result
        elif unit.kind == "model":
            self.models[about["cost"], about["space"]] = result
        elif unit.kind in ("search", "published"):
            self.networks[name] = result["architecture"]
            self.about[name] = about
            if unit.kind == "search":
                self.searches[name] = result

    def ap(self, data: str, network: str) -> dict[int, float]:
        """Maps the seed of each training to its AP."""
        return self._ap.get((data, network), {})

    def cost(self, network: str, cost: str) -> float | None:
        """Returns the measured, simulated or counted cost of a network; None if it is not known yet."""
        return self._costs.get((network, cost), {}).get("cost")

    def counts(self, network: str) -> dict[str, Any]:
        """Returns `params` and `madds` of a network, as far as they are known."""
        found = (row for (name, _), row in self._costs.items() if name == network)
        return next(found, {})

    def titled(self, cost: str) -> str:
        """Returns a cost with its kind, such as `hexagon (simulated)`."""
        kinds = {row["kind"] for (_, name), row in self._costs.items() if name == cost}
        return f"{cost} ({', '.join(sorted(kinds))})" if kinds else cost

    def found(self, cost: str, space: str) -> Iterator[tuple[tuple[float, int], str]]:
        """Yields ((target, seed of the search), network) of the searches for a cost in a space."""
        for name in self.searches:
            about = self.about[name]
            if (about["cost"], about["space"]) == (cost, space):
                yield (about["target"], about["seed"]), name

    def difference(self, data: str, better: str, worse: str) -> list[float]:
        """Returns the differences of AP of two networks, paired by the seed of the training."""
        ours, theirs = self.ap(data, better), self.ap(data, worse)
        return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def shown(figure: dict[str, Any] | None, form: str = ".3f") -> str:
    """Formats a mean with its interval."""
    if figure is None:
        return "-"
    if figure["interval"] is None:
        return f"{figure['mean']:{form}} (one value)"
    low, high = figure["interval"]
    return f"{figure['mean']:{form}} [{low:{form}}, {high:{form}}]"


def networks(figures: Figures) -> Table:
    """Returns cost and AP of every network."""
    rows = []
    for name in figures.networks:
        about, search = figures.about[name], figures.searches.get(name)
        counts = figures.counts(name)
        measured = figures.cost(name, about["cost"]) if search else None
        rows.append(
            (
                name,
                "-" if not search or measured is None else f"{measured / search['target']:.3f}",
                search["source"] if search else "-",
                *(f"{counts[key]:,}" if key in counts else "-" for key in ("params", "madds")),
                *(_number(figures.cost(name, cost)) for cost in figures.costs if cost != "madds"),
                *(shown(intervals.mean(list(figures.ap(data, name).values()))) for data in figures.data),
            )
        )
    return Table(
        "Networks",
        "The name of a searched network consists of its cost, space, target (as a fraction of the cost of "
        "the published `edgetpu`) and the seed of the search. Latencies are in ms. Intervals of AP are over "
        "the seeds of the training.",
        (
            "network",
            "own cost / target",
            "source",
            "parameters",
            "multiply-adds",
            *(figures.titled(cost) for cost in figures.costs if cost != "madds"),
            *(f"AP, {data}" for data in figures.data),
        ),
        rows,
    )


def gains(figures: Figures) -> tuple[Table, list[Finding]]:
    """Returns the gain in AP of spaces with full convolutions over inverted bottlenecks alone."""
    rows, findings = [], []
    for data in figures.data:
        for cost in figures.costs:
            base = dict(figures.found(cost, FEWEST))
            for space in figures.spaces:
                pairs = [(at, name, base[at]) for at, name in figures.found(cost, space) if at in base]
                pairs = [pair for pair in pairs if space != FEWEST and figures.difference(data, *pair[1:])]
                if not pairs:
                    continue
                means = []
                for (target, seed), name, other in pairs:
                    values = figures.difference(data, name, other)
                    means.append(statistics.mean(values))
                    ratio = _ratio(figures, cost, name, other)
                    rows.append(
                        (
                            data,
                            figures.titled(cost),
                            space,
                            f"{target:g}, search {seed}",
                            ratio,
                            shown(intervals.mean(values)),
                            f"{len(values)} trainings",
                        )
                    )
                pooled = intervals.mean(means)
                rows.append(
                    (
                        data,
                        figures.titled(cost),
                        space,
                        "all",
                        "",
                        shown(pooled),
                        f"{len(means)} targets and searches",
                    )
                )
                subject = f"{data}, {figures.titled(cost)}: networks of `{space}` against `{FEWEST}`:"
                findings.append(Finding(subject, pooled, cost not in ("madds", "host_cpu")))
    table = Table(
        f"AP of spaces with full convolutions minus AP of `{FEWEST}`, at equal targets",
        "Differences are paired by the seed of the training. In a row for one target, the interval is over "
        "trainings of the two networks, each found by one search. In the row `all`, it is over targets and "
        "searches, with their means over trainings as values. The cost ratio is that of the measured costs "
        "of the two networks.",
        ("data", "cost", "space", "target", "cost ratio", "difference of AP", "interval over"),
        rows,
    )
    return table, findings


def transfer(figures: Figures) -> tuple[Table, list[Finding]]:
    """Compares networks found for one cost with networks found for another, both on the latter."""
    rows, findings = [], []
    for data in figures.data:
        for theirs in figures.costs:
            for ours in figures.costs:
                if ours == theirs:
                    continue
                pairs = list(_transferred(figures, data, theirs, ours))
                if not pairs:
                    continue
                gains_ = [gain for _, gain in pairs if gain is not None]
                pooled = intervals.mean(gains_)
                ratio = statistics.geometric_mean([ratio for ratio, _ in pairs])
                compared = f"{len(gains_)} of {len(pairs)}"
                both = (figures.titled(theirs), figures.titled(ours))
                rows.append((data, *both, f"{ratio:.2f}", shown(pooled), compared))
                if pooled:
                    subject = (
                        f"{data}, {figures.titled(ours)}: networks found for it against networks found for "
                        f"{theirs} that are not faster on it:"
                    )
                    findings.append(Finding(subject, pooled, True))
    table = Table(
        "Transfer",
        "Networks found for A are timed on B. The latency ratio is their latency on B divided by that of "
        "the networks found for B with the same space, target and search (geometric mean). The gain "
        "compares each of them with the slowest network found for B in the same space that is at most "
        f"{BAND:.0%} slower on B: AP of the latter minus AP of the former, averaged over trainings. Its "
        "interval is over spaces, targets and searches. Networks that are faster on B than all networks "
        "found for B cannot be compared; the last column counts the others.",
        (
            "data",
            "found for A",
            "timed on B",
            "latency ratio on B",
            "gain in AP by searching for B",
            "compared",
        ),
        rows,
    )
    return table, findings


def _transferred(figures: Figures, data: str, theirs: str, ours: str) -> Iterator[tuple[float, float | None]]:
    """Yields (time ratio, gain in AP) of each network found for `theirs`, on `ours`."""
    for space in figures.spaces:
        own = dict(figures.found(ours, space))
        for at, network in figures.found(theirs, space):
            cost = figures.cost(network, ours)
            equal = figures.cost(own[at], ours) if at in own else None
            if cost is None or equal is None:
                continue
            rivals = {name: figures.cost(name, ours) for name in own.values()}
            slower = {name: at for name, at in rivals.items() if at is not None and at <= cost * (1 + BAND)}
            # The rival is chosen by cost, because choosing by AP would favour it.
            rival = max(slower, key=slower.__getitem__, default=None)
            values = figures.difference(data, rival, network) if rival else []
            yield cost / equal, statistics.mean(values) if values else None


def searches(figures: Figures) -> Table:
    """Returns how well each search ranked networks, and its duration."""
    first = figures.data[0]
    rows = []
    for name, search in figures.searches.items():
        about, tau, certainty = figures.about[name], search["reliability"]["tau"], search["certainty"]
        against = search["against_known"]
        rows.append(
            (
                name,
                f"{search['search_s'] / 60:.0f}",
                "-" if tau is None else f"{tau:.2f}",
                search["source"],
                "-" if certainty is None else f"{certainty:.0%}",
                "-"
                if against is None or against["is_found"] or against["certainty"] is None
                else f"{against['certainty']:.0%}",
                _rank(figures, first, name, about),
            )
        )
    return Table(
        "Searches",
        "Minutes are the duration of the command. Split-half tau measures how well the shared weights rank "
        "networks. Certainty is the share of bootstrap samples of images in which the chosen network beats "
        "the runner-up, and the best known network. The rank is by AP after stand-alone training on "
        f"{first}, among networks found for the same cost and target in all spaces and the published "
        f"networks that are at most {BAND:.0%} above the target.",
        (
            "search",
            "minutes",
            "split-half tau",
            "chosen",
            "certainty against the runner-up",
            "against the best known",
            "rank by stand-alone AP",
        ),
        rows,
    )


def _rank(figures: Figures, data: str, name: str, about: dict[str, Any]) -> str:
    limit = figures.searches[name]["target"] * (1 + BAND)
    rivals = [
        other
        for other in figures.networks
        if (
            other in figures.searches and all(figures.about[other][k] == about[k] for k in ("cost", "target"))
        )
        or (other not in figures.searches and (figures.cost(other, about["cost"]) or limit + 1) <= limit)
    ]
    means = {other: statistics.mean(found.values()) for other in rivals if (found := figures.ap(data, other))}
    if name not in means:
        return "-"
    return f"{1 + sum(value > means[name] for value in means.values())} of {len(means)}"


def models(figures: Figures) -> Table:
    """Returns the errors of latency models on held-out networks and on final populations."""
    rows = []
    for (cost, space), model in figures.models.items():
        if model["held_out"] is None:
            continue
        whole = model["held_out"]["whole_space"]
        rows.append((figures.titled(cost), space, "held out, whole space", *_errors(whole), "-"))
    for name, search in figures.searches.items():
        if search["model_error"]:
            about, error = figures.about[name], search["model_error"]
            rows.append(
                (
                    figures.titled(about["cost"]),
                    about["space"],
                    f"population of {name}",
                    *_errors(error),
                    f"{error['mean_pct_error']:+.1f} %",
                )
            )
    return Table(
        "Latency models against the device",
        "The final population of each search (the known networks, the evolved ones and the best seen) is "
        "timed on the device, and the finalists are the networks inside the band by these latencies. A "
        "population lies within a few percent of the target, so its R2 and Spearman coefficient refer to a "
        "very narrow range. The population of host_cpu is not timed, because other units run at the same "
        "time as the search.",
        (
            "cost",
            "space",
            "networks",
            "n",
            "R2",
            "Spearman",
            "mean error",
            "worst error",
            "mean signed error",
        ),
        rows,
    )


def _errors(error: dict[str, Any]) -> tuple[str, ...]:
    r2, spearman = (("-" if error[k] is None else f"{error[k]:.3f}") for k in ("r2", "spearman"))
    worst = f"{error['worst_abs_pct_error']:.1f} %"
    return str(error["n"]), r2, spearman, f"{error['mean_abs_pct_error']:.1f} %", worst


def _ratio(figures: Figures, cost: str, name: str, other: str) -> str:
    ours, theirs = figures.cost(name, cost), figures.cost(other, cost)
    return "-" if ours is None or theirs is None else f"{ours / theirs:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
