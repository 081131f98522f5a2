"""The ablation table of a sweep: what each arm reached, over how many seeds, and everything that is not clean about it.

A table is built from the sweep's manifest, not from the folders that happen to exist, so that a run that is missing is
seen to be missing. Only runs that are done enter a mean. See render.py for how a table looks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moe_sweeps.results.frame import Loaded
from moe_sweeps.results.labels import SEED_KEYS, label_arms, spell, unread_knobs, varying_keys
from moe_sweeps.results.manifest import Manifest, PlannedRun, Request
from moe_sweeps.results.stats import Estimate, estimate

STALE_AFTER = 300.0  # seconds without a heartbeat
UNKNOWN = "unknown"

# Every way in which a run can stand in a table, and what a reader should know about it.
OUTCOMES = {
    "done": "trained to the end",
    "stopped": "collapsed and stopped there (trainer.stop_on_collapse); an outcome, and its numbers are in no mean",
    "diverged": "the loss became NaN or infinite; this is an outcome, and its numbers are in no mean",
    "failed": "ended with an error; traceback.txt in its folder says why",
    "stale": f"says that it is running, but gave no sign of life for {STALE_AFTER / 60:.0f} minutes",
    "running": "being trained now",
    "queued": "waiting to be started",
    "planned": "has a folder, but was never started",
    "preempted": "stopped from outside with its state saved; it goes on when started again",
    "cancelled": "stopped by its owner",
    "missing": "has no folder",
    "unreadable": "its folder is damaged or incomplete",
}
# Outcomes after which nothing is left to train.
ENDED = frozenset({"done", "stopped", "diverged"})
COLLAPSED = "the router sent nearly everything to the same experts for long; numbers of done runs stay in the mean"


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of numbers: `factor` turns the stored unit into the one of the header."""

    column: str
    header: str
    digits: int
    factor: float = 1.0


METRICS = (
    Metric("val_loss", "val loss", 4),
    Metric("val_perplexity", "perplexity", 2),
    Metric("val_accuracy", "accuracy %", 2, factor=100.0),
    Metric("val_maxvio_global", "MaxVio global", 3),
    Metric("train_maxvio_batch", "MaxVio batch", 3),
)


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One planned run of an arm: how it stands, and why."""

    run_id: str
    folder: str
    seed: int
    outcome: str
    detail: str
    collapsed: bool = False


@dataclass(frozen=True, slots=True)
class Arm:
    """One row. `code` and `data` are the versions behind its finished runs."""

    arm: str
    label: str
    settings: dict[str, str]
    runs: tuple[ArmRun, ...]
    cells: dict[str, Estimate]
    code: tuple[str, ...]
    data: tuple[str, ...]

    @property
    def counts(self) -> Counter[str]:
        return Counter(run.outcome for run in self.runs)

    @property
    def done(self) -> int:
        return self.counts["done"]

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


def ablation_table(manifest: Manifest, runs: Loaded, *, now: float | None = None) -> Table:
    """The table of the sweep `manifest` from what `load_runs` read. `now` decides which runs are stale."""
    frame = runs.frame.loc[runs.frame["run_id"].isin(list(manifest.runs))]
    rows: dict[str, dict[str, Any]] = {row["run_id"]: _plain(row) for row in frame.to_dict("records")}
    unreadable = {p.path.name.rsplit("-", 1)[-1]: p.reason for p in runs.problems}
    now = time.time() if now is None else now
    members: dict[str, list[ArmRun]] = {}
    for run_id, planned in manifest.runs.items():
        outcome, detail = _outcome(planned, rows.get(run_id), unreadable.get(run_id), now)
        collapsed_router = outcome in ENDED and bool(rows[run_id].get("collapsed"))
        run = ArmRun(run_id, planned.folder, planned.seed, outcome, detail, collapsed_router)
        members.setdefault(planned.arm, []).append(run)
    labels = label_arms(manifest)
    arms = tuple(_arm(arm, labels.text[arm], labels.settings[arm], found, rows) for arm, found in members.items())
    scales = _distinct(str(row["scale"]) for row in rows.values() if row["scale"] is not None)
    tokens = {
        int(row["tokens"])
        for row in rows.values()
        if row["state"] == "done" and not row.get("stopped_early") and row["tokens"] is not None
    }
    return Table(manifest, arms, labels.axes, scales, tuple(sorted(tokens)), collapsed(manifest, labels.text))


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


def collapsed(manifest: Manifest, labels: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence for each arm that answers more than one combination of settings, seeds apart."""
    combinations: dict[str, dict[str, Request]] = {}
    for request in manifest.requested:
        if request.run_id in manifest.runs:
            settings = {k: v for k, v in request.overrides.items() if k not in SEED_KEYS}
            combinations.setdefault(manifest.runs[request.run_id].arm, {})[spell(settings)] = request
    unread = unread_knobs(manifest)
    merged = {arm: list(found.values()) for arm, found in combinations.items() if len(found) > 1}
    return tuple(_collapse(labels[arm], requests, unread[arm]) for arm, requests in merged.items())


def _collapse(label: str, requests: list[Request], unread: dict[str, str]) -> str:
    """Which combinations became the arm `label`, and why."""
    varying = [k for k in varying_keys([r.overrides for r in requests]) if k not in SEED_KEYS]
    if not set(varying) <= set(unread):
        which = "; ".join(
            spell({k: r.overrides[k] for k in varying if k in r.overrides}) or "defaults" for r in requests
        )
        return f"{label}: {len(requests)} combinations have the same meaning and are one arm ({which})"
    values = {k: dict.fromkeys(r.overrides[k] for r in requests if k in r.overrides) for k in varying}
    asked = " and ".join(f"{k}={','.join(found)}" for k, found in values.items())
    reason = "; ".join(f"{k} is read by {unread[k]}" for k in varying)
    return f"{label}: {len(requests)} combinations ({asked}) are one arm, because {reason}"


def _arm(arm: str, label: str, settings: dict[str, str], runs: list[ArmRun], rows: Mapping[str, dict[str, Any]]) -> Arm:
    done = [rows[run.run_id] for run in runs if run.outcome == "done"]
    finished = [rows[run.run_id] for run in runs if run.outcome in ENDED]
    cells = {m.column: estimate([row[m.column] for row in done if row[m.column] is not None]) for m in METRICS}
    code = _distinct(row["source_hash"] or UNKNOWN for row in finished)
    data = _distinct(row["data_fingerprint"] or UNKNOWN for row in finished)
    return Arm(arm, label, settings, tuple(runs), cells, code, data)


def _outcome(planned: PlannedRun, row: dict[str, Any] | None, unreadable: str | None, now: float) -> tuple[str, str]:
    """How a planned run stands, and the detail worth showing."""
    if unreadable is not None:
        return "unreadable", unreadable
    if row is None:
        return "missing", ""
    if row["arm"] != planned.arm:
        return "unreadable", f"it belongs to arm {row['arm']}, but the sweep says {planned.arm}"
    state, progress = row["state"], f"step {row['step']} of {row['total_steps']}"
    if state == "running" and (silent := now - row["heartbeat"]) > STALE_AFTER:
        return "stale", f"{progress}, silent for {_duration(silent)}"
    if state == "failed":
        return state, f"{progress}, {row['failure'] or 'no message'}"
    if state == "done" and row.get("stopped_early"):
        return "stopped", f"{progress}, collapsed at step {row['collapsed_at_step']:.0f}"
    if state == "diverged":
        step = row.get("diverged_at_step")
        return state, progress if step is None else f"at step {step:.0f} of {row['total_steps']}"
    return state, progress


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} min"


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A record of the frame with None where it holds nothing."""
    return {str(k): None if pd.isna(v) else v for k, v in row.items()}


def _distinct(values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
