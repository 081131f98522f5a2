"""The ablation table of a sweep: what each arm reached, over how many seeds, and everything that is not clean about it.

A table is built from the sweep's manifest, not from the folders that happen to exist, so that a run that is missing is
seen to be missing. Only runs that are done enter a mean. See render.py for how a table looks.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from moe_sweeps.results.columns import BY_COLUMN, METRICS, PRIMARY, Metric
from moe_sweeps.results.compare import Comparison, Sample, compare, complete, differences, pooled_sd
from moe_sweeps.results.definition import GENERIC, TableDefinition, load_definition
from moe_sweeps.results.frame import Loaded
from moe_sweeps.results.labels import label_arms
from moe_sweeps.results.manifest import Manifest
from moe_sweeps.results.merged import collapsed
from moe_sweeps.results.noise import Floor, Noise
from moe_sweeps.results.outcomes import ENDED, OUTCOMES, ArmRun, outcome
from moe_sweeps.results.stats import Estimate, estimate

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Arm:
    """One row. `code` and `data` are the versions behind its finished runs."""

    arm: str
    label: str
    settings: dict[str, str]
    runs: tuple[ArmRun, ...]
    cells: dict[str, Estimate]
    code: tuple[str, ...]
    data: tuple[str, ...]

    @functools.cached_property
    def counts(self) -> Counter[str]:
        """Runs by outcome. Every format asks for them, for every arm."""
        return Counter(run.outcome for run in self.runs)

    @property
    def done(self) -> int:
        return self.counts["done"]

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """The frame's rows of its finished runs."""
        return [run.row for run in self.runs if run.outcome == "done" and run.row is not None]

    def sample(self, column: str) -> Sample:
        """One number by seeds, and what the run of those seeds began with."""
        rows = {(row.get("seed"), row.get("data_seed")): row for row in self.rows if row.get(column) is not None}
        return Sample({s: row[column] for s, row in rows.items()}, {s: _start(row) for s, row in rows.items()})

    @property
    def router_collapsed(self) -> int:
        """Runs whose router collapsed at some step, however they ended."""
        return sum(run.collapsed for run in self.runs)

    @property
    def complete(self) -> bool:
        """Every planned run has its outcome, and a number that one run has, all have."""
        return all(run.outcome in ENDED for run in self.runs) and not self.has_gaps

    @property
    def has_gaps(self) -> bool:
        """Some of its done runs lack a number that others have."""
        return any(0 < cell.n < self.done for cell in self.cells.values())


@dataclass(frozen=True, slots=True)
class Table:
    """The ablation table of one sweep, before it is rendered."""

    manifest: Manifest
    arms: tuple[Arm, ...]
    axes: tuple[str, ...]
    scales: tuple[str, ...]
    tokens: tuple[int, ...]
    collapsed: tuple[str, ...]
    baseline: str | None = None  # arm id
    differences: dict[str, Comparison] = field(default_factory=dict)  # of the primary metric, by arm id
    floor: Floor | None = None  # what seeds alone do to the primary metric
    wider: Floor | None = None  # what they do on average over all arms with several seeds, where that is more
    definition: TableDefinition = GENERIC

    @property
    def name(self) -> str:
        return self.manifest.table

    def arm(self, arm: str) -> Arm:
        return next(a for a in self.arms if a.arm == arm)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Its columns of numbers."""
        return metrics_of(self.definition)

    @property
    def title(self) -> str:
        return f"{self.manifest.name} ({self.manifest.sweep_id})" if self.manifest.sweep_id else self.manifest.name

    @property
    def counts(self) -> Counter[str]:
        """Planned runs by outcome."""
        return sum((arm.counts for arm in self.arms), Counter())

    @property
    def code(self) -> tuple[str, ...]:
        return _distinct(version for arm in self.arms for version in arm.code)

    @property
    def data(self) -> tuple[str, ...]:
        return _distinct(version for arm in self.arms for version in arm.data)

    @property
    def one_version(self) -> bool:
        """All finished runs are known to have used the same code and the same data."""
        return all(len(versions) <= 1 and UNKNOWN not in versions for versions in (self.code, self.data))

    @property
    def clean(self) -> bool:
        """Nothing is missing, and nothing is mixed. A diverged or collapsed run is an outcome, not a gap."""
        return self.one_version and all(arm.complete for arm in self.arms)


def ablation_table(manifest: Manifest, runs: Loaded, *, noise: Noise | None = None, now: float | None = None) -> Table:
    """The table of the sweep `manifest` from what `load_runs` read. `now` decides which runs are stale."""
    frame = runs.frame.loc[runs.frame["run_id"].isin(list(manifest.runs))]
    rows: dict[str, dict[str, Any]] = {row["run_id"]: _plain(row) for row in frame.to_dict("records")}
    members = _members(manifest, rows, runs, time.time() if now is None else now)
    labels = label_arms(manifest)
    definition = load_definition(manifest.table)
    arms = tuple(
        _arm(arm, labels.text[arm], labels.settings[arm], found, metrics_of(definition))
        for arm, found in members.items()
    )
    scales = _distinct(str(row["scale"]) for row in rows.values() if row["scale"] is not None)
    tokens = tuple(sorted({int(row["tokens"]) for arm in arms for row in arm.rows if row["tokens"] is not None}))
    floor = noise.floor(PRIMARY.column, scales, tokens) if noise else None
    wider = noise.wider(PRIMARY.column, scales, tokens) if noise else None
    baseline = manifest.baseline if manifest.baseline in members else arms[0].arm if len(arms) > 1 else None
    return Table(
        manifest, arms, labels.columns(definition.columns), scales, tokens, collapsed(manifest, labels.text), baseline,
        compare_arms(arms, baseline, PRIMARY, wider or floor), floor, wider, definition,
    )  # fmt: skip


def metrics_of(definition: TableDefinition) -> tuple[Metric, ...]:
    """The columns of numbers that every table has, and those that this one wants besides."""
    return (*METRICS, *(BY_COLUMN[name] for name in definition.metrics))


def compare_arms(
    arms: tuple[Arm, ...], baseline: str | None, metric: Metric, noise: Floor | None
) -> dict[str, Comparison]:
    """Every other arm minus the arm `baseline`, corrected as one family; arms without a value are left out.

    `noise`: what single runs are held against.
    """
    samples = {arm.arm: arm.sample(metric.column) for arm in arms}
    if baseline is None or baseline not in samples:
        return {}
    base = samples[baseline]
    by_id = {arm.arm: arm for arm in arms}
    lost = {arm.arm: arm.counts["diverged"] + arm.counts["stopped"] for arm in arms}
    raw = {
        arm: replace(found, lost=lost[arm] + lost[baseline], mixed=mixed(by_id[arm], by_id[baseline]))
        for arm, sample in samples.items()
        if arm != baseline and (found := compare(sample, base, lower_is_better=metric.lower_is_better))
    }
    of_pairs = pooled_sd([differences(samples[arm], base) for arm, found in raw.items() if found.kind == "paired"])
    of_runs = pooled_sd([list(sample.values.values()) for sample in samples.values()])
    sd_pairs, sd_runs = (found[0] if found else None for found in (of_pairs, of_runs))
    return complete(raw, sd_pairs, sd_runs, noise.difference if noise else None)


def mixed(a: Arm, b: Arm) -> bool:
    """Whether two arms together rest on more than one version of the code or of the data."""
    return len({*a.code, *b.code}) > 1 or len({*a.data, *b.data}) > 1


def _members(
    manifest: Manifest, rows: Mapping[str, dict[str, Any]], runs: Loaded, now: float
) -> dict[str, list[ArmRun]]:
    unreadable = {p.path.name.rsplit("-", 1)[-1]: p.reason for p in runs.problems}
    members: dict[str, list[ArmRun]] = {}
    for run_id, planned in manifest.runs.items():
        row = rows.get(run_id)
        kind, detail = outcome(planned, row, unreadable.get(run_id), now)
        collapsed_router = kind in ENDED and row is not None and bool(row.get("collapsed"))
        run = ArmRun(run_id, planned.folder, planned.seed, kind, detail, collapsed_router, row)
        members.setdefault(planned.arm, []).append(run)
    return members


def marks(table: Table, arm: Arm) -> list[str]:
    """What a reader of this row must know besides its numbers."""
    found = [f"{n} {outcome}" for outcome in OUTCOMES if outcome != "done" and (n := arm.counts[outcome])]
    if arm.router_collapsed:
        found.append(f"{arm.router_collapsed} collapsed")
    if arm.has_gaps:
        found.append("missing values")
    for name, in_table, in_arm in (("code", table.code, arm.code), ("data", table.data, arm.data)):
        if in_arm and (len(in_table) > 1 or UNKNOWN in in_table):
            found.append(f"{name} {'+'.join(version[:6] if version != UNKNOWN else version for version in in_arm)}")
    return found


def _arm(arm: str, label: str, settings: dict[str, str], runs: list[ArmRun], metrics: tuple[Metric, ...]) -> Arm:
    done = [run.row for run in runs if run.outcome == "done" and run.row]
    finished = [run.row for run in runs if run.outcome in ENDED and run.row]
    cells = {m.column: estimate([row[m.column] for row in done if row[m.column] is not None]) for m in metrics}
    code, data = _versions(finished, "source_hash"), _versions(finished, "data_fingerprint")
    return Arm(arm, label, settings, tuple(runs), cells, code, data)


def _versions(rows: Sequence[Mapping[str, Any]], column: str) -> tuple[str, ...]:
    """Every version behind these runs; one that changed on its way has several, joined by plus signs."""
    return _distinct(version for row in rows for version in str(row[column] or UNKNOWN).split("+"))


def _start(row: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """What must be equal for two runs to be a pair; None if it is not known."""
    start = row.get("pairing.initial_weights"), row.get("pairing.batches")
    return None if None in start else start


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A record of the frame with None where it holds nothing."""
    return {str(k): None if pd.isna(v) else v for k, v in row.items()}


def _distinct(values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
