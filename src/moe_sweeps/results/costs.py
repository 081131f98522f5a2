"""What an arm costs: its time relative to the baseline, and the loss that it has reached when time is up for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_sweeps.results.curves import load_curves
from moe_sweeps.results.stats import Estimate, estimate
from moe_sweeps.results.tables import Arm, Table


@dataclass(frozen=True, slots=True)
class Costs:
    """Training seconds of an arm's runs, their mean relative to the baseline's, and the loss after `budget` seconds."""

    seconds: Estimate
    relative: float | None
    budget: float | None
    loss_at_budget: Estimate


def costs(table: Table) -> dict[str, Costs]:
    """Costs by arm id.

    The budget is the training time of the fastest arm's mean run. The loss at it lies on the straight line between the
    two validations around it, with the seconds of a run spread evenly over its steps. Validation during training is on
    a part of the validation set, the same for all arms.
    """
    seconds = {arm.arm: estimate([float(r["train_seconds"]) for r in arm.rows if _has_time(r)]) for arm in table.arms}
    means = {arm: found.mean for arm, found in seconds.items() if found.mean}
    budget = min(means.values(), default=None)
    base = means.get(table.baseline or "")
    return {
        arm.arm: Costs(
            seconds[arm.arm],
            means[arm.arm] / base if base and arm.arm in means else None,
            budget,
            _loss_at(arm, budget),
        )
        for arm in table.arms
    }


def timed_validation(arm: Arm) -> pd.DataFrame:
    """Validation losses of the done runs of an arm over seconds of training: run_id, seconds, loss."""
    rows = {str(row["run_id"]): row for row in arm.rows if _has_time(row)}
    curves = load_curves([str(row["folder"]) for row in rows.values()]).frame
    val = curves.loc[curves["split"] == "val"] if len(curves) else curves
    if val.empty:
        return pd.DataFrame(columns=["run_id", "seconds", "loss"])
    rate = val["run_id"].map({i: float(row["train_seconds"]) / float(row["step"]) for i, row in rows.items()})
    return pd.DataFrame({"run_id": val["run_id"], "seconds": val["step"] * rate, "loss": val["loss"].astype(float)})


def _loss_at(arm: Arm, budget: float | None) -> Estimate:
    if budget is None:
        return estimate([])
    found = []
    for _, run in timed_validation(arm).groupby("run_id"):
        if run["seconds"].iloc[0] <= budget:
            found.append(float(np.interp(budget, run["seconds"], run["loss"])))
    return estimate(found)


def _has_time(row: Mapping[str, object]) -> bool:
    return bool(row.get("train_seconds")) and bool(row.get("step"))
