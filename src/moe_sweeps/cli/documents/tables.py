"""`moe-sweeps tables --json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from moe_sweeps.cli.documents.document import Document, Part, Trouble, told, troubles
from moe_sweeps.reports.evidence import Evidence
from moe_sweeps.reports.notes import legend, warning
from moe_sweeps.reports.render_costs import notes_of
from moe_sweeps.reports.write import Written
from moe_sweeps.results.compare import Comparison
from moe_sweeps.results.costs import CostTable
from moe_sweeps.results.findings import Effect, Verdict
from moe_sweeps.results.outcomes import ArmRun
from moe_sweeps.results.stats import Estimate
from moe_sweeps.results.tables import Arm, Table


@dataclass(frozen=True, slots=True)
class EstimateData(Part):
    """A number over independent runs."""

    n: int = told("runs that have it")
    mean: float | None = told("null without a run")
    sd: float | None = told("sample standard deviation; null below two runs")
    half_width: float | None = told("of the 95% t-interval for the mean; null below two runs")


@dataclass(frozen=True, slots=True)
class ArmRunData(Part):
    """One planned run."""

    run_id: str = told("twelve hexadecimal digits")
    folder: str = told("name of its folder below the runs folder")
    seed: int = told("its seed")
    outcome: str = told("done, diverged, stopped, or what keeps it from having a result")
    detail: str = told("why; else empty")
    collapsed: bool = told("its router collapsed at some step")


@dataclass(frozen=True, slots=True)
class ArmData(Part):
    """One row of a table."""

    arm: str = told("twelve hexadecimal digits that replicates share")
    label: str = told("its settings in one line")
    settings: dict[str, str] = told("keys and values that tell it from other arms, as typed")
    metrics: dict[str, EstimateData] = told("by the key of summary.json, in that key's unit")
    runs: list[ArmRunData] = told("planned runs")
    code: list[str] = told("versions of the code behind its results")
    data: list[str] = told("fingerprints of the data behind them")


@dataclass(frozen=True, slots=True)
class DifferenceData(Part):
    """An arm minus the baseline in one metric."""

    arm: str = told("of the row")
    metric: str = told("a key of summary.json")
    scale: str = told("linear, or log: then difference, low, high and detectable are of natural logarithms")
    difference: float = told("arm minus baseline")
    low: float | None = told("interval that holds for all arms of the table at once; null where nothing can be tested")
    high: float | None = told("its upper end")
    p: float | None = told("two-sided")
    p_family: float | None = told("corrected over the arms of the table")
    level: float = told("what p_family is held against")
    probability_better: float | None = told(
        "that the arm is better than the baseline, by the two tails of the test; not corrected; null without a test"
    )
    detectable: float | None = told("what a table of this spread finds with a chance of 80%; for planning alone")
    seeds: str = told("paired by seed, independent, or one seed")
    n_arm: int = told("runs of the arm")
    n_baseline: int = told("runs of the baseline")
    verdict: str = told("better, worse, undecided (with a remark), or why there is none")


@dataclass(frozen=True, slots=True)
class EffectData(Part):
    """The number behind a claim."""

    value: float = told("in the unit that `what` says")
    low: float | None = told("its interval")
    high: float | None = told("its upper end")
    what: str = told("difference, ratio, ...")
    n: list[int] = told("runs on each side")
    basis: str = told("how seeds are used, and whether the spread is that of alike runs")


@dataclass(frozen=True, slots=True)
class ClaimData(Part):
    """One statement that the sweep was to judge."""

    claim: str = told("the statement")
    metric: str = told("a key of summary.json")
    source: str = told("who said so")
    verdict: str = told("reproduced, contradicted, undecided, or that it cannot be judged")
    why: str = told("in words")
    effect: EffectData | None = told("null where an arm is missing")
    runs: list[str] = told("run ids behind it")
    p: float | None = told("corrected over the claims of the sweep")


@dataclass(frozen=True, slots=True)
class ArmCostData(Part):
    """What one arm cost."""

    arm: str = told("of the row")
    costs: dict[str, EstimateData] = told(
        "seconds_per_step and its parts, hours of a reference run, relative to the baseline, optimizer_state_bytes, "
        "loss_at_steps, loss_at_seconds; over the runs that are done"
    )


@dataclass(frozen=True, slots=True)
class CostsData(Part):
    """What the arms of a sweep cost, and what they reach at equal cost."""

    baseline: str = told("arm that `relative` refers to")
    steps: int | None = told("where loss_at_steps is taken; null: no step at which every run was evaluated")
    seconds: float | None = told("of training, where loss_at_seconds is taken")
    hosts: list[str] = told("where runs were timed; times of several do not compare without care")
    arms: list[ArmCostData] = told("rows")
    notes: list[str] = told("what the numbers are")


@dataclass(frozen=True, slots=True)
class TableData(Part):
    """The table of one sweep."""

    sweep_id: str = told("twelve hexadecimal digits; empty for runs that no sweep asked for")
    name: str = told("of the table")
    scales: list[str] = told("of its runs")
    tokens: list[int] = told("of its runs, distinct")
    looks: int = told("how many times seeds were planned; the level of every test depends on it")
    final: bool = told("nothing is missing or mixed")
    warning: str | None = told("what keeps it from being final")
    baseline: str | None = told("arm that others are held against")
    arms: list[ArmData] = told("rows")
    differences: list[DifferenceData] = told("of every arm and every metric that has a better direction")
    claims: list[ClaimData] = told("statements of the sweep's file")
    costs: CostsData | None = told("null where no run has recorded any")
    notes: list[str] = told("explanations of marks")


@dataclass(frozen=True, slots=True)
class TablesDocument(Document):
    """The ablation tables of all sweeps, or of those asked for; files are written as without --json."""

    SCHEMA: ClassVar[str] = "moe-sweeps/tables"

    tables: list[TableData] = told("the newest first")
    final: bool = told("everything could be read, and every table is final: exit code 0")
    page: str | None = told("path of the page with all of it")
    problems: list[Trouble] = told("what could not be read, and is part of no number")


def tables_document(written: Written) -> TablesDocument:
    """The document of what was written."""
    page = written.page
    problems = troubles([(Path(problem.path), problem.reason) for problem in written.problems])
    listed = [_table(found) for found in written.evidence]
    return TablesDocument(listed, written.clean, None if page is None else str(page), problems)


def estimate_data(found: Estimate) -> EstimateData:
    """An estimate as data."""
    return EstimateData(found.n, found.mean, found.sd, found.half_width)


def arm_run(run: ArmRun) -> ArmRunData:
    """A planned run as data."""
    return ArmRunData(run.run_id, run.folder, run.seed, run.outcome, run.detail, run.collapsed)


def _table(found: Evidence) -> TableData:
    table = found.table
    return TableData(
        table.manifest.sweep_id, table.name, list(table.scales), list(table.tokens), table.looks, table.clean,
        warning(table), table.baseline, list(map(_arm, table.arms)), _differences(table),
        list(map(_claim, found.verdicts)), None if found.costs is None else _costs(found.costs), legend(table),
    )  # fmt: skip


def _arm(arm: Arm) -> ArmData:
    metrics = {column: estimate_data(cell) for column, cell in arm.cells.items()}
    runs = [arm_run(run) for run in arm.runs]
    return ArmData(arm.arm, arm.label, arm.settings, metrics, runs, list(arm.code), list(arm.data))


def _differences(table: Table) -> list[DifferenceData]:
    every = [table.differences, *table.others.values()]
    return [_difference(arm, one) for family in every for arm, one in family.items()]


def _difference(arm: str, one: Comparison) -> DifferenceData:
    return DifferenceData(
        arm, one.metric.column, one.metric.scale, one.difference, one.low, one.high, one.p, one.p_family, one.level,
        one.probability_better, one.detectable, one.kind, *one.n, one.verdict,
    )  # fmt: skip


def _claim(one: Verdict) -> ClaimData:
    effect = None if one.effect is None else _effect(one.effect)
    return ClaimData(one.claim, one.metric, one.source, one.verdict, one.why, effect, list(one.runs), one.p)


def _costs(found: CostTable) -> CostsData:
    arms = [
        ArmCostData(arm, {k: estimate_data(cell) for k, cell in cells.items()}) for arm, cells in found.cells.items()
    ]
    return CostsData(found.baseline.arm, found.steps, found.seconds, list(found.hosts), arms, notes_of(found))


def _effect(one: Effect) -> EffectData:
    return EffectData(one.value, one.low, one.high, one.what, list(one.n), one.basis)
