"""How a planned run can stand, and how one does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moe_sweeps.results.manifest import PlannedRun

STALE_AFTER = 300.0  # seconds without a heartbeat

# Every way in which a run can stand in a table, and what a reader should know about it.
OUTCOMES = {
    "done": "trained to the end",
    "stopped": "collapsed and stopped there (trainer.stop_on_collapse); an outcome, and its numbers are in no mean",
    "diverged": "the loss became NaN or infinite; this is an outcome, and its numbers are in no mean",
    "pruned": "its search did not train it to the end; an outcome of the search, and its numbers are in no mean",
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
ENDED = frozenset({"done", "stopped", "diverged", "pruned"})
COLLAPSED = "the router sent nearly everything to the same experts for long; numbers of done runs stay in the mean"


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One planned run of an arm: how it stands, and why."""

    run_id: str
    folder: str
    seed: int
    outcome: str
    detail: str
    collapsed: bool = False
    row: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)  # of the frame


def outcome(planned: PlannedRun, row: dict[str, Any] | None, unreadable: str | None, now: float) -> tuple[str, str]:
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
    if state == "preempted" and planned.pruned is not None and row["step"] == planned.pruned:
        return "pruned", progress
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
