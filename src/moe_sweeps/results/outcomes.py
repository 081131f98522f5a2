"""The outcomes that a planned run can have, and which one it has."""

from __future__ import annotations

from dataclasses import dataclass, field

from moe_sweeps.records.manifest import RunRecord
from moe_sweeps.records.status import PAUSED, PRUNED
from moe_sweeps.results.runs import Row

STALE_AFTER = 300.0  # seconds without a heartbeat

# Every outcome of a planned run, and what a reader of a table should know about it.
OUTCOMES = {
    "done": "trained to the end",
    "stopped": "its router collapsed and training stopped (trainer.stop_on_collapse); its numbers are in no mean",
    "diverged": "the loss became NaN or infinite; this is an outcome, and its numbers are in no mean",
    "pruned": "its search stopped it before the end; an outcome of the search, and its numbers are in no mean",
    "failed": "ended with an error; traceback.txt in its folder says why",
    "stale": f"says that it is running, but has had no heartbeat for {STALE_AFTER / 60:.0f} minutes",
    "running": "being trained now",
    "queued": "waiting to be started",
    "planned": "has a folder, but was never started",
    "preempted": "stopped from outside with its state saved; it resumes when it is started again",
    "paused": "stopped at trainer.stop_at or a rung of its search; it resumes when it is to be trained further",
    "cancelled": "stopped by its owner",
    "missing": "has no folder",
    "edited": "its config.yaml or identity.json was edited, so its numbers are no evidence and are in no mean",
    "unreadable": "its folder is damaged or incomplete",
}
# Outcomes that leave nothing to train.
ENDED = frozenset({"done", "stopped", "diverged", "pruned"})
COLLAPSED = "the router sent nearly everything to the same experts for long; numbers of done runs stay in the mean"


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One planned run of an arm: its outcome, and why."""

    run_id: str
    folder: str
    seed: int
    outcome: str
    detail: str
    collapsed: bool = False
    row: Row | None = field(default=None, compare=False, repr=False)
    trunk: str | None = None

    @property
    def unit(self) -> str:
        """What counts as one seed of its arm: the run, or the trunk that replicates of a fork share."""
        return self.trunk or self.run_id


def outcome(planned: RunRecord, row: Row | None, unreadable: str | None, now: float) -> tuple[str, str]:
    """The outcome of a planned run, and the detail worth showing. `unreadable`: why its folder is."""
    if unreadable is not None:
        return "unreadable", unreadable
    if row is None:
        return "missing", ""
    if row["arm"] != planned.arm:
        return "unreadable", f"it belongs to arm {row['arm']}, but the sweep says {planned.arm}"
    state, progress = row["state"], f"step {row['step']} of {row['total_steps']}"
    if state == "running" and (silent := now - row["heartbeat"]) > STALE_AFTER:
        return "stale", f"{progress}, silent for {_duration(silent)}"
    if state == "edited":
        return state, row["failure"]
    if state == "failed":
        return state, f"{progress}, {row['failure'] or 'no message'}"
    if state == PAUSED and planned.pruned is not None and row["step"] == planned.pruned:
        return PRUNED, progress
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
