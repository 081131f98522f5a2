"""What the arms of a sweep cost and what they reach at equal cost: seconds by part of a step, loss at equal time.

`seconds_per_step` is over all steps of a run; forward, backward and optimizer are means over the steps that were timed,
and the rest of a step is data, clipping and logging. Losses are those of the evaluations during training, which
all take the same windows: the one at the end takes more of them and would not be comparable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from moe_sweeps.records.numbers import Metric
from moe_sweeps.records.problem import Problem
from moe_sweeps.results.curves import load_curves
from moe_sweeps.results.evaluations import usual_size
from moe_sweeps.results.runs import Row, Runs
from moe_sweeps.results.stats import CONFIDENCE, Estimate, estimate, t_quantile
from moe_sweeps.results.tables import Arm, Table
from moe_sweeps.results.timing import unlike

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
# A mean over the runs that have such a value would flatter the arm: the slow ones have none.
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
    baseline: Arm  # the divisor of `relative`: the table's baseline, or the first arm with a time
    steps: int | None  # where losses are compared at equal steps
    seconds: float | None  # and at equal time
    hosts: tuple[str, ...]
    damaged: tuple[Problem, ...] = ()  # finished runs whose losses on the way cannot be read
    unlike: str = ""  # why no arm has a relative time, or a loss at equal time


def cost_table(table: Table, runs: Runs) -> CostTable | None:
    """The costs behind `table` from what `read_runs` read, or None where no run has recorded any."""
    done = {run.run_id for arm in table.arms for run in arm.runs if run.outcome == "done"}
    rows = runs.of(done)
    first = sorted(table.arms, key=lambda arm: arm.arm != table.baseline)  # the table's baseline before any other
    baseline = next((arm for arm in first if _values(arm, rows, "seconds_per_step")), None)
    if baseline is None:
        return None
    curves = load_curves([row["folder"] for row in rows.values()])
    points, why = evaluations(curves.frame), unlike(rows.values())
    steps, seconds = common_step(points), None if why else common_seconds(points)
    rows = {id_: {**row, **_derived(row, points.get(id_, []), steps, seconds)} for id_, row in rows.items()}
    cells = {arm.arm: {m.column: estimate(_values(arm, rows, m.column)) for m in COSTS} for arm in table.arms}
    hosts = tuple(dict.fromkeys(str(row["host"]) for row in rows.values() if row["host"] is not None))
    base = cells[baseline.arm]["seconds_per_step"]
    for arm in table.arms:
        own = cells[arm.arm]["seconds_per_step"]
        cells[arm.arm]["relative"] = Estimate(own.n, 1.0) if arm is baseline else ratio(own, base)
    if why:
        cells = {arm: {**found, "relative": Estimate(0)} for arm, found in cells.items()}
    return CostTable(table, cells, baseline, steps, seconds, hosts, tuple(curves.problems), why)


def ratio(a: Estimate, b: Estimate) -> Estimate:
    """The mean of `a` over that of `b`, with an interval for the spread of both; none where either has one run.

    The half-width is by the delta method, r t sqrt(va + vb) with va = sd_a^2 / (n_a mean_a^2) and vb alike, and t on
    Welch's degrees of freedom, (va + vb)^2 / (va^2 / (n_a - 1) + vb^2 / (n_b - 1)).
    """
    if a.mean is None or b.mean is None or a.sd is None or b.sd is None or not (a.mean and b.mean):
        return Estimate(0)
    value = a.mean / b.mean
    parts = [(one.sd or 0.0) ** 2 / (one.n * (one.mean or 1.0) ** 2) for one in (a, b)]
    whole = sum(parts)
    if not whole:
        return Estimate(a.n, value, None, 0.0)
    freedom = whole**2 / sum(part**2 / (one.n - 1) for part, one in zip(parts, (a, b), strict=True))
    return Estimate(a.n, value, None, value * t_quantile(0.5 + CONFIDENCE / 2, freedom) * math.sqrt(whole))


def hours(arm: Arm) -> Estimate:
    """Hours that so many steps as one of the talk's runs would take, over the arm's finished runs."""
    found = [_hours(row.get("seconds_per_step")) for row in arm.rows]
    return estimate([value for value in found if value is not None])


def _hours(seconds_per_step: float | None) -> float | None:
    return None if seconds_per_step is None else seconds_per_step * REFERENCE_STEPS / 3600


def evaluations(curves: pd.DataFrame) -> dict[str, list[Point]]:
    """The validation losses of each run over its training, of the size of evaluation that occurs most often."""
    columns = ["run_id", "step", "train_seconds", "loss", "tokens"]
    found = curves.reindex(columns=[*columns, "split"]).query("split == 'val'")[columns].dropna()
    size = usual_size(found["tokens"])
    points: dict[str, list[Point]] = {}
    for run_id, step, seconds, loss, tokens in found.sort_values("step").itertuples(index=False):
        if tokens == size:
            points.setdefault(run_id, []).append(Point(int(step), float(seconds), float(loss)))
    return points


def common_step(points: Mapping[str, Sequence[Point]]) -> int | None:
    """The last step at which every run was evaluated; None if there is none."""
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


def _derived(row: Row, points: Sequence[Point], steps: int | None, seconds: float | None) -> dict[str, float | None]:
    """The columns of one run that its summary does not hold."""
    return {
        "hours": _hours(row.get("seconds_per_step")),
        "loss_at_steps": None if steps is None else loss_at_step(points, steps),
        "loss_at_seconds": None if seconds is None else loss_at_seconds(points, seconds),
    }


def _values(arm: Arm, rows: Mapping[str, Row], column: str) -> list[float]:
    found = [rows[run.run_id].get(column) for run in arm.runs if run.run_id in rows]
    there = [float(value) for value in found if value is not None]
    return [] if column in _OF_ALL and len(there) < len(found) else there
