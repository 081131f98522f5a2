"""What the arms of a sweep cost, and what they reach for the same cost: seconds by part of a step, loss at equal time.

`seconds_per_step` is over all steps of a run; forward, backward and optimizer are means over the steps that were timed,
and what is missing to the sum is data, clipping and logging. Losses are those of the evaluations during training, which
all take the same windows: the one at the end takes more of them and would not be comparable.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from moe_sweeps.results.columns import Metric
from moe_sweeps.results.curves import load_curves
from moe_sweeps.results.frame import Loaded
from moe_sweeps.results.stats import Estimate, estimate
from moe_sweeps.results.tables import Arm, Table

REFERENCE_STEPS = 50_000  # of one of the talk's runs

HOURS = Metric("hours", f"h per {REFERENCE_STEPS:,} steps", 2)
COSTS = (
    Metric("seconds_per_step", "ms per step", 1, factor=1e3),
    Metric("seconds_forward", "forward", 1, factor=1e3),
    Metric("seconds_backward", "backward", 1, factor=1e3),
    Metric("seconds_optimizer", "optimizer", 1, factor=1e3),
    Metric("relative", "relative time", 2),
    HOURS,
    Metric("optimizer_state_bytes", "state MB", 1, factor=1e-6),
    Metric("loss_at_steps", "loss, equal steps", 4),
    Metric("loss_at_seconds", "loss, equal time", 4),
)
# Runs that never got there are the slow ones: a mean over the others would flatter their arm.
_OF_ALL = frozenset({"loss_at_steps", "loss_at_seconds"})


class Point(NamedTuple):
    """One evaluation during training."""

    step: int
    seconds: float  # spent in training steps until then
    loss: float


@dataclass(frozen=True, slots=True)
class CostTable:
    """The costs of a sweep's arms, by arm and column; only runs that are done count."""

    table: Table
    cells: dict[str, dict[str, Estimate]]
    baseline: Arm  # what `relative` is relative to: that of the table, or the first arm with a time
    steps: int | None  # where losses are compared at equal steps
    seconds: float | None  # and at equal time
    hosts: tuple[str, ...]


def cost_table(table: Table, runs: Loaded) -> CostTable | None:
    """The costs behind `table` from what `load_runs` read, or None where no run has recorded any."""
    done = {run.run_id for arm in table.arms for run in arm.runs if run.outcome == "done"}
    frame = runs.frame.loc[runs.frame["run_id"].isin(done)]
    rows: dict[str, dict[str, Any]] = {str(row["run_id"]): _plain(row) for row in frame.to_dict("records")}
    first = sorted(table.arms, key=lambda arm: arm.arm != table.baseline)  # the table's baseline before any other
    baseline = next((arm for arm in first if _values(arm, rows, "seconds_per_step")), None)
    if baseline is None:
        return None
    points = evaluations(list(frame["folder"]))
    steps, seconds = common_step(points), common_seconds(points)
    unit = estimate(_values(baseline, rows, "seconds_per_step")).mean
    for run_id, row in rows.items():
        row |= _derived(row, points.get(run_id, []), steps, seconds, unit)
    cells = {arm.arm: {m.column: estimate(_values(arm, rows, m.column)) for m in COSTS} for arm in table.arms}
    hosts = tuple(dict.fromkeys(str(row["host"]) for row in rows.values() if row["host"] is not None))
    return CostTable(table, cells, baseline, steps, seconds, hosts)


def hours(arm: Arm) -> Estimate:
    """Hours that so many steps as one of the talk's runs would take, over the arm's finished runs."""
    found = [_hours(row.get("seconds_per_step")) for row in arm.rows]
    return estimate([value for value in found if value is not None])


def _hours(seconds_per_step: float | None) -> float | None:
    return None if seconds_per_step is None else seconds_per_step * REFERENCE_STEPS / 3600


def evaluations(folders: Sequence[str]) -> dict[str, list[Point]]:
    """The validation losses of each run over its training, of the size of evaluation that occurs most often."""
    curves = load_curves(folders).frame
    columns = ["run_id", "step", "train_seconds", "loss", "tokens"]
    found = curves.reindex(columns=[*columns, "split"]).query("split == 'val'")[columns].dropna()
    sizes = Counter(found["tokens"])
    size = max(sizes, key=lambda tokens: (sizes[tokens], tokens), default=None)
    points: dict[str, list[Point]] = {}
    for run_id, step, seconds, loss, tokens in found.sort_values("step").itertuples(index=False):
        if tokens == size:
            points.setdefault(run_id, []).append(Point(int(step), float(seconds), float(loss)))
    return points


def common_step(points: Mapping[str, Sequence[Point]]) -> int | None:
    """The last step at which every run was evaluated."""
    shared = set.intersection(*({p.step for p in found} for found in points.values())) if points else set()
    return max(shared, default=None)


def common_seconds(points: Mapping[str, Sequence[Point]]) -> float | None:
    """The longest training time that every run has an evaluation at or after."""
    return min((found[-1].seconds for found in points.values()), default=None)


def loss_at_step(points: Sequence[Point], step: int) -> float | None:
    """The validation loss after `step` updates, if it was evaluated there."""
    return next((p.loss for p in points if p.step == step), None)


def loss_at_seconds(points: Sequence[Point], seconds: float) -> float | None:
    """The validation loss after `seconds` of training: on a line between two evaluations, never beyond them."""
    for before, after in itertools.pairwise(points):
        if before.seconds <= seconds <= after.seconds:
            way = (seconds - before.seconds) / ((after.seconds - before.seconds) or 1.0)
            return before.loss + way * (after.loss - before.loss)
    return next((p.loss for p in points if p.seconds == seconds), None)


def _derived(
    row: Mapping[str, Any], points: Sequence[Point], steps: int | None, seconds: float | None, unit: float | None
) -> dict[str, float | None]:
    """The columns of one run that its summary does not hold. `unit`: seconds per step of the baseline."""
    own = row.get("seconds_per_step")
    return {
        "relative": own / unit if own is not None and unit else None,
        "hours": _hours(own),
        "loss_at_steps": None if steps is None else loss_at_step(points, steps),
        "loss_at_seconds": None if seconds is None else loss_at_seconds(points, seconds),
    }


def _values(arm: Arm, rows: Mapping[str, Mapping[str, Any]], column: str) -> list[float]:
    found = [rows[run.run_id].get(column) for run in arm.runs if run.run_id in rows]
    there = [float(value) for value in found if value is not None]
    return [] if column in _OF_ALL and len(there) < len(found) else there


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A record of the frame with None where it holds nothing."""
    return {str(k): None if pd.isna(v) else v for k, v in row.items()}
