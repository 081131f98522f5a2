"""The ablation table of a sweep: what each arm reached, over how many seeds, and what is missing, failed or mixed.

A table is built from the sweep's manifest and not from the folders that exist, so that a missing run is visible. Only
runs that are done enter a mean. reports/rows.py and reports/layout.py say how a table looks.
"""

from __future__ import annotations

import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from moe_sweeps.errors import ConfigError, nearest
from moe_sweeps.paths import TABLES
from moe_sweeps.records.code_record import UNKNOWN, CodeRecord, disagree, versions
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.records.numbers import METRICS, PRIMARY, Metric, metric_of
from moe_sweeps.records.problem import Problem
from moe_sweeps.results.compare import Comparison, Sample, compare_all
from moe_sweeps.results.definition import GENERIC, TableDefinition, load_definition
from moe_sweeps.results.labels import label_arms
from moe_sweeps.results.merged import collapsed
from moe_sweeps.results.nested import is_forked, question_of, start_of, unit_values, units
from moe_sweeps.results.noise import Alike, Floor, Noise, code_of, is_look_of_decide, versions_of
from moe_sweeps.results.outcomes import ENDED, OUTCOMES, ArmRun, outcome
from moe_sweeps.results.runs import Row, Runs
from moe_sweeps.results.stats import Estimate, estimate
from moe_sweeps.results.timing import unlike


@dataclass(frozen=True)
class Arm:
    """One row. `code` and `data` are the versions behind its finished runs.

    Arms whose code does not contradict have the same `code`; `records` differ, since arms execute different files.
    """

    arm: str
    label: str
    settings: dict[str, str]
    runs: tuple[ArmRun, ...]
    cells: dict[str, Estimate]
    code: tuple[str, ...]
    data: tuple[str, ...]
    records: tuple[CodeRecord, ...] = ()
    elsewhere: tuple[Row, ...] = ()  # finished runs of this arm that other sweeps asked for
    lost_elsewhere: int = 0

    @functools.cached_property
    def counts(self) -> Counter[str]:
        """Runs by outcome. Cached, since every output format asks for them."""
        return Counter(run.outcome for run in self.runs)

    @property
    def done(self) -> int:
        """How many of its runs are done."""
        return self.counts["done"]

    @property
    def seeds_done(self) -> int:
        """How many of its seeds have a run that is done. Replicates of a fork share theirs."""
        return len({run.unit for run in self.runs if run.outcome == "done"})

    @property
    def seeds_planned(self) -> int:
        """How many seeds were asked for."""
        return len({run.unit for run in self.runs})

    @property
    def rows(self) -> list[Row]:
        """The rows of its finished runs."""
        return [run.row for run in self.runs if run.outcome == "done" and run.row is not None]

    @property
    def every_row(self) -> list[Row]:
        """The rows of its finished runs, those of other sweeps first."""
        return [*self.elsewhere, *self.rows]

    def sample(self, column: str) -> Sample:
        """One number by seeds, and what the run of those seeds began with; runs of other sweeps count too."""
        return self.sample_of(lambda row: _number(row, column))

    def sample_of(self, number: Callable[[Row], float | None]) -> Sample:
        """The same of any number of a run. Of forks it is the mean over the replicates of a trunk (nested.py)."""
        every = [row for row in self.every_row if number(row) is not None]
        starts = {seed: start_of(rows, _start) for seed, rows in units(every).items()}
        return Sample(unit_values(every, number), starts, any(map(is_forked, every)))

    @property
    def lost(self) -> int:
        """Seeds that diverged or were stopped: those that are left flatter the arm."""
        return self.counts["diverged"] + self.counts["stopped"] + self.lost_elsewhere

    @property
    def router_collapsed(self) -> int:
        """Runs whose router collapsed at some step, however they ended."""
        return sum(run.collapsed for run in self.runs)

    @property
    def complete(self) -> bool:
        """Every planned run has ended, and no run lacks a number that another one has."""
        return all(run.outcome in ENDED for run in self.runs) and not self.has_gaps

    @property
    def has_gaps(self) -> bool:
        """Some of its done runs lack a number that others have."""
        return any(0 < cell.n < len(units(self.rows)) for cell in self.cells.values())


@dataclass(frozen=True, slots=True)
class Table:
    """The ablation table of one sweep, before it is rendered."""

    manifest: Manifest
    arms: tuple[Arm, ...]
    axes: tuple[str, ...]
    scales: tuple[str, ...]
    tokens: tuple[int, ...]
    sizes: tuple[str, ...]  # of its finished runs; see records/noise.py
    collapsed: tuple[str, ...]
    baseline: str | None = None  # arm id
    differences: dict[str, Comparison] = field(default_factory=dict)  # of the primary metric, by arm id
    others: dict[str, dict[str, Comparison]] = field(default_factory=dict)  # of further metrics, a family each
    floor: Floor | None = None  # what seeds alone do to the primary metric
    alike: Alike = Alike(())  # runs that lend their spread
    looks: int = 1  # how many times seeds of this sweep were planned until it
    definition: TableDefinition = GENERIC
    problems: tuple[Problem, ...] = ()  # of the file that lays it out

    @property
    def name(self) -> str:
        """The name of the table."""
        return self.manifest.table

    def arm(self, arm: str) -> Arm:
        """The arm with this id."""
        return next(a for a in self.arms if a.arm == arm)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Its columns of numbers."""
        return metrics_of(self.definition)

    @property
    def title(self) -> str:
        """The heading of the table; that of forks says from which step on its arms differ."""
        sweep = f" ({self.manifest.sweep_id})" if self.manifest.sweep_id else ""
        return f"{self.manifest.name}{sweep}{question_of(self.manifest)}"

    @property
    def counts(self) -> Counter[str]:
        """Planned runs by outcome."""
        return sum((arm.counts for arm in self.arms), Counter())

    @property
    def code(self) -> tuple[str, ...]:
        """Versions of the code of its runs."""
        return _distinct(version for arm in self.arms for version in arm.code)

    @property
    def data(self) -> tuple[str, ...]:
        """Fingerprints of the data of its runs."""
        return _distinct(version for arm in self.arms for version in arm.data)

    @property
    def arithmetic(self) -> Counter[str]:
        """How its finished runs were computed, as far as they say so: runs by kernels and dense products."""
        rows = (row for arm in self.arms for row in arm.rows if row.get("arithmetic.kernels"))
        return Counter(f"{row['arithmetic.kernels']}, {row['arithmetic.products']}" for row in rows)

    @property
    def one_version(self) -> bool:
        """All finished runs are known to have used the same code and the same data."""
        return all(len(versions) <= 1 and UNKNOWN not in versions for versions in (self.code, self.data))

    @property
    def clean(self) -> bool:
        """Nothing is missing or mixed. A diverged or collapsed run is an outcome and no gap."""
        return self.one_version and all(arm.complete for arm in self.arms)


def ablation_table(
    manifest: Manifest, runs: Runs, *, noise: Noise | None = None, now: float | None = None, first: int = 1
) -> Table:
    """The table of the sweep `manifest` from what `read_runs` read.

    `now` decides which runs are stale. `first`: the least that the number of its look can be.
    """
    rows = runs.of(manifest.runs)
    members = _members(manifest, rows, runs, time.time() if now is None else now)
    labels = label_arms(manifest)
    definition, problems = _definition(manifest)
    names = versions([record for found in members.values() for record in _records(found)])
    arms = tuple(
        _arm(arm, labels.text[arm], labels.settings[arm], found, metrics_of(definition), names)
        for arm, found in members.items()
    )
    scales = _distinct(str(row["scale"]) for row in rows.values() if row["scale"] is not None)
    tokens = tuple(sorted({int(row["tokens"]) for arm in arms for row in arm.rows if row["tokens"] is not None}))
    sizes = _distinct(row["size"] for arm in arms for row in arm.rows)
    data, code = _distinct(v for arm in arms for v in arm.data), [record for arm in arms for record in arm.records]
    alike = noise.like(sizes, data, code) if noise else Alike(())
    later = noise.later_runs(manifest) if noise else set()
    if not is_look_of_decide(manifest):  # which names all the runs that it judged
        arms = tuple(_with_elsewhere(arm, alike, later) for arm in arms)
    looks = max(noise.looks(manifest) if noise else 1, first)
    problems += _absent(definition, arms)
    baseline = manifest.baseline if manifest.baseline in members else arms[0].arm if len(arms) > 1 else None
    return Table(
        manifest, arms, labels.columns(definition.columns), scales, tokens, sizes,
        collapsed(manifest, labels.text), baseline, compare_arms(arms, baseline, PRIMARY, alike, looks),
        {m.column: compare_arms(arms, baseline, m, alike, looks) for m in _compared(definition)},
        alike.floor(PRIMARY), alike, looks, definition, tuple(problems),
    )  # fmt: skip


def _definition(manifest: Manifest) -> tuple[TableDefinition, list[Problem]]:
    """The layout of the table; the generic one, and the problem, where its file cannot be used."""
    try:
        return load_definition(manifest.table), []
    except ConfigError as error:
        return GENERIC, [Problem(TABLES / f"{manifest.table}.yaml", f"the table is laid out without it: {error}")]


def _absent(definition: TableDefinition, arms: Sequence[Arm]) -> list[Problem]:
    """Columns that no finished run has a number for, though there are finished runs."""
    if not any(arm.done for arm in arms):
        return []
    known = {key.removeprefix("summary.") for arm in arms for row in arm.rows for key in row}
    names = [name for name in definition.metrics if not any(arm.cells[name].n for arm in arms)]
    guesses = {name: nearest(name, known - {name}) for name in names}
    hints = {name: f"; did you mean {near}?" if near else "" for name, near in guesses.items()}
    path = TABLES / f"{definition.name}.yaml"
    return [Problem(path, f"metrics: no finished run has a number {name}{hint}") for name, hint in hints.items()]


def metrics_of(definition: TableDefinition) -> tuple[Metric, ...]:
    """The columns of numbers: those of every table, then those that the definition adds."""
    return (*METRICS, *map(metric_of, definition.metrics))


def _compared(definition: TableDefinition) -> list[Metric]:
    """The metrics besides the primary one that are compared: those with a direction, but not the loss once more."""
    found = [m for m in metrics_of(definition) if m.better and m is not PRIMARY and m.column != "val_perplexity"]
    return list({m.column: m for m in found}.values())


def compare_arms(
    arms: tuple[Arm, ...], baseline: str | None, metric: Metric, alike: Alike | None = None, looks: int = 1
) -> dict[str, Comparison]:
    """Every other arm minus the arm `baseline`, corrected as one family; arms without a value are left out."""
    by_id = {arm.arm: arm for arm in arms}
    if baseline is None or baseline not in by_id:
        return {}
    base = by_id[baseline]
    samples = {arm.arm: arm.sample(metric.column) for arm in arms}
    lent = alike.lent(metric, by_id) if alike else None

    def barred(arm: Arm) -> str:
        return unlike([*arm.every_row, *base.every_row]) if metric.timed else ""

    return {
        arm: replace(found, lost=by_id[arm].lost + base.lost, mixed=mixed(by_id[arm], base), barred=barred(by_id[arm]))
        for arm, found in compare_all(samples, baseline, metric, lent=lent, look=looks).items()
    }


def _with_elsewhere(arm: Arm, alike: Alike, later: Collection[str]) -> Arm:
    """With the runs of this arm that other sweeps asked for, but for those of later looks at the same sweep."""
    mine = {run.run_id for run in arm.runs}.union(later)
    return replace(arm, elsewhere=tuple(alike.of_arm(arm.arm, mine)), lost_elsewhere=alike.lost(arm.arm, mine))


def mixed(a: Arm, b: Arm) -> bool:
    """Whether two arms together rest on more than one version of the code or of the data."""
    return disagree([*a.records, *b.records]) or len({*a.data, *b.data}) > 1


def _members(manifest: Manifest, rows: Mapping[str, Row], runs: Runs, now: float) -> dict[str, list[ArmRun]]:
    unreadable = {p.path.name.rsplit("-", 1)[-1]: p.reason for p in runs.problems}
    members: dict[str, list[ArmRun]] = {}
    for run_id, planned in manifest.runs.items():
        row = rows.get(run_id)
        kind, detail = outcome(planned, row, unreadable.get(run_id), now)
        collapsed_router = kind in ENDED and row is not None and bool(row.get("collapsed"))
        run = ArmRun(run_id, planned.folder, planned.seed, kind, detail, collapsed_router, row, planned.trunk)
        members.setdefault(planned.arm, []).append(run)
    return members


def marks(table: Table, arm: Arm) -> list[str]:
    """What a reader of this row must know beside its numbers."""
    found = [f"{n} {outcome}" for outcome in OUTCOMES if outcome != "done" and (n := arm.counts[outcome])]
    if arm.router_collapsed:
        found.append(f"{arm.router_collapsed} collapsed")
    if arm.has_gaps:
        found.append("missing values")
    for name, in_table, in_arm in (("code", table.code, arm.code), ("data", table.data, arm.data)):
        if in_arm and (len(in_table) > 1 or UNKNOWN in in_table):
            found.append(f"{name} {'+'.join(version[:6] if version != UNKNOWN else version for version in in_arm)}")
    return found


def _arm(
    arm: str, label: str, settings: dict[str, str], runs: list[ArmRun], metrics: tuple[Metric, ...],
    names: Mapping[str, str],
) -> Arm:  # fmt: skip
    done = [run.row for run in runs if run.outcome == "done" and run.row]
    records = _records(runs)
    cells = {m.column: estimate(_units_of(done, m.column)) for m in metrics}
    code = _distinct(names[record.version] for record in records)
    data = _distinct(one for row in _finished(runs) for one in versions_of(row, "data_fingerprint"))
    return Arm(arm, label, settings, tuple(runs), cells, code, data, records)


def _number(row: Row, column: str) -> float | None:
    """A number of a run's summary; None where it has none, or something else under that name."""
    value = row.get(f"summary.{column}", row.get(column))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def _units_of(rows: Sequence[Row], column: str) -> list[float]:
    return list(unit_values(rows, lambda row: _number(row, column)).values())


def _finished(runs: Sequence[ArmRun]) -> list[Row]:
    return [run.row for run in runs if run.outcome in ENDED and run.row]


def _records(runs: Sequence[ArmRun]) -> tuple[CodeRecord, ...]:
    """Every version of the code behind the finished ones of these runs."""
    found = [record for row in _finished(runs) for record in code_of(row)]
    return tuple({record.version: record for record in found}.values())


def _start(row: Row) -> tuple[Any, Any] | None:
    """Initial weights and batches, which are equal in a pair of runs; None if they are not known."""
    start = row.get("pairing.initial_weights"), row.get("pairing.batches")
    return None if None in start else start


def _distinct(values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
