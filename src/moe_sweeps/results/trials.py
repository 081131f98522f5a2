"""The trials of a search as its manifest and the run folders tell them: how far each came, its value, why it stopped.

A value at a rung is that of an evaluation on the way, on fewer windows and in the middle of the schedule. It is never
mixed with those of runs that were trained to their end.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moe_sweeps.errors import RunFolderError
from moe_sweeps.records.manifest import Manifest, SearchRecord, TrialRecord, spell_settings
from moe_sweeps.records.metrics_log import MetricsLog
from moe_sweeps.records.numbers import Metric, metric_of
from moe_sweeps.results.outcomes import ENDED, ArmRun
from moe_sweeps.results.tables import Table

REFUSED, REPEATED = "refused", "repeated"
_WORST_FIRST = ("unreadable", "edited", "failed", "diverged", "stopped", "cancelled", "missing", "planned", "queued",
                "stale", "running", "preempted", "paused", "pruned", "done")  # fmt: skip
_ENDINGS = {1: "st", 2: "nd", 3: "rd"}


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One suggestion of a search, its seeds taken together.

    `state` is an outcome of a planned run (outcomes.py), or REFUSED or REPEATED; of several seeds the worst. `value` is
    the mean of the metric over the seeds in its own unit: the final one where `final`, else that of the last rung that
    all seeds reached, `rung`. `at_rungs`: the mean at every rung that all seeds reached. `why`: why it stopped where it
    did.
    """

    number: int
    settings: Mapping[str, str]
    params: Mapping[str, float | int | str]
    state: str
    step: int = 0
    total: int = 0
    rung: int | None = None
    value: float | None = None
    final: bool = False
    seeds_done: int = 0
    runs: tuple[ArmRun, ...] = ()
    at_rungs: Mapping[int, float] = field(default_factory=dict)
    why: str = ""

    @property
    def label(self) -> str:
        """The point in one line."""
        return spell_settings(self.settings)


def search_of(table: Table) -> tuple[SearchRecord, Metric] | None:
    """The search behind a table and the number that it looks for; None for the table of a grid."""
    found = table.manifest.search
    return None if found is None else (found, metric_of(found.metric))


def trials_of(table: Table) -> list[TrialRow]:
    """The trials of the search behind a table, best first: those trained to their end, then by the rung they reached.

    What repeats an earlier suggestion, was refused or has no value comes last. Empty for the table of a grid.
    """
    found = search_of(table)
    if found is None:
        return []
    search, metric = found
    members = _members(table.manifest, search)
    by_id = {run.run_id: run for arm in table.arms for run in arm.runs}
    rows = [
        _trial(number, trial, search, metric, [by_id[id_] for id_ in members[number] if id_ in by_id], table.manifest)
        for number, trial in enumerate(search.trials)
    ]
    ranked = sorted(rows, key=lambda row: _order(row, metric))
    return [_explained(row, ranked, search, metric) for row in ranked]


def _members(manifest: Manifest, search: SearchRecord) -> list[list[str]]:
    """Run ids of each trial, in the order of its seeds: requests are listed by trial, and a refused one has none."""
    ids = [request.run_id for request in manifest.requested]
    seeds, found = max(1, len(search.seeds)), []
    for trial in search.trials:
        count = 0 if trial.refused is not None else seeds
        found.append(ids[:count])
        ids = ids[count:]
    return found


def _trial(
    number: int, trial: TrialRecord, search: SearchRecord, metric: Metric, runs: Sequence[ArmRun], manifest: Manifest
) -> TrialRow:
    settings = next((manifest.runs[run.run_id].settings for run in runs if run.run_id in manifest.runs), {})
    settings = settings or {key: str(value) for key, value in trial.params.items()}
    if trial.refused is not None:
        return TrialRow(number, settings, trial.params, REFUSED, why=trial.refused)
    if trial.same_as is not None:
        why = f"it means the same runs as trial {trial.same_as}"
        return TrialRow(number, settings, trial.params, REPEATED, runs=tuple(runs), why=why)
    state = min((run.outcome for run in runs), key=_WORST_FIRST.index, default="missing")
    steps = [int((run.row or {}).get("step") or 0) for run in runs]
    totals = [int((run.row or {}).get("total_steps") or 0) for run in runs]
    done = sum(run.outcome == "done" for run in runs)
    final = _mean([_final(run, metric) for run in runs])
    at_rungs = _at_rungs(runs, search, metric, min(steps, default=0))
    rung = max(at_rungs, default=None) if final is None else None
    value = at_rungs[rung] if rung is not None else final
    return TrialRow(number, settings, trial.params, state, min(steps, default=0), max(totals, default=0), rung, value,
                    final is not None, done, tuple(runs), at_rungs)  # fmt: skip


def _final(run: ArmRun, metric: Metric) -> float | None:
    value = (run.row or {}).get(metric.column) if run.outcome == "done" else None
    return float(value) if value is not None and _is_finite(value) else None


def _at_rungs(runs: Sequence[ArmRun], search: SearchRecord, metric: Metric, step: int) -> dict[int, float]:
    """The mean of the metric at every rung that all seeds reached; none for a trial that ended badly."""
    if metric.in_log is None or any(run.outcome in ("diverged", "stopped") for run in runs):
        return {}
    logged = [_logged(run, metric.in_log) for run in runs]
    means = {rung: _mean([values.get(rung) for values in logged]) for rung in search.rungs if rung <= step}
    return {rung: mean for rung, mean in means.items() if mean is not None}


def _logged(run: ArmRun, name: str) -> dict[int, float]:
    """A number of the evaluations of a run, by step; none where the log cannot be read."""
    if run.row is None:
        return {}
    try:
        lines = MetricsLog(Path(str(run.row["folder"])) / "metrics.jsonl").records()
        return {one["step"]: float(one[name]) for one in lines if one["split"] == "val" and _is_finite(one.get(name))}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RunFolderError):
        return {}


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return math.fsum(found) / len(found) if found and len(found) == len(values) else None


def better(metric: Metric, value: float) -> float:
    """The value such that lower is better."""
    return -value if metric.better == "higher" else value


def _order(row: TrialRow, metric: Metric) -> tuple[bool, bool, int, float, int]:
    value = math.inf if row.value is None else better(metric, row.value)
    return row.value is None, not row.final, -(row.rung or row.step), value, row.number


def _explained(row: TrialRow, every: Sequence[TrialRow], search: SearchRecord, metric: Metric) -> TrialRow:
    return row if row.why else dataclasses.replace(row, why=_why(row, every, search, metric))


def _why(row: TrialRow, every: Sequence[TrialRow], search: SearchRecord, metric: Metric) -> str:
    if row.state == "done":
        return "trained to its end"
    if row.state in ("pruned", "paused") and row.rung is not None and row.value is not None:
        values = [better(metric, other.at_rungs[row.rung]) for other in every if row.rung in other.at_rungs]
        place = 1 + sum(value < better(metric, row.value) for value in values)
        rule = f"{_nth(place)} of {len(values)} at step {row.rung:,}, where 1 in {search.reduction} goes on"
        return rule if row.state == "pruned" else f"{rule}; the search is not over"
    details = [run.detail for run in row.runs if run.outcome == row.state and run.detail]
    if row.state in ENDED or details:
        return next(iter(details), "")
    return "its runs are not over"


def _nth(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{_ENDINGS.get(number % 10, 'th')}"
