"""What a plan looks like."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from helpers import TINY
from rich.console import Console

from moe_sweeps.cli.plan_view import collapse_reasons, print_plan
from moe_sweeps.records.rundir import State, Status
from moe_sweeps.sweep.cost import PlanCost, plan_cost
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.plan import Plan, make_plan


def printed(plan: Plan, cost: PlanCost) -> str:
    file = io.StringIO()
    print_plan(Console(file=file, width=140, color_system=None), plan, cost)
    return file.getvalue()


def planned(folders: Path, *line: str, workers: int) -> str:
    plan = make_plan([*TINY, *line])
    return printed(plan, plan_cost(plan, Estimator(folders), workers))


def test_a_plan_says_what_will_happen(folders: Path) -> None:
    shown = planned(folders, "balancer=aux,lossfree", "aux.coef=0.1,0.2", workers=2)
    assert "Plan: balancer (2) x aux.coef (2) = 4 combinations, 3 distinct runs" in shown
    readers = "balancer=aux or balancer=aux_lossfree"
    assert f"aux.coef is not read by balancer=lossfree ({readers} reads it): set in 2 combinations" in shown
    assert "already done: 0, to run: 3" in shown
    assert "with 2 workers (a guess: 20% of this machine's matrix-product peak" in shown
    assert "disk: about" in shown


def test_a_knob_that_nothing_reads_is_said_even_if_nothing_collapses(folders: Path) -> None:
    shown = planned(folders, "balancer=lossfree", "aux.coef=0.3", "seed=0,1", workers=1)
    assert "not read: aux.coef is not read by balancer=lossfree" in shown


def test_one_run_is_called_one_run(folders: Path) -> None:
    assert "Plan: one run = 1 combination, 1 distinct run\n" in planned(folders, workers=1)


def test_a_disk_that_is_too_small_stands_out(folders: Path) -> None:
    plan = make_plan(TINY)
    cost = plan_cost(plan, Estimator(folders), 1)
    assert "of checkpoints, only 10 B free" in printed(plan, PlanCost(cost.runs, 1, free_disk=10))


def test_a_plan_says_what_was_cancelled(folders: Path) -> None:
    line = "balancer=aux,lossfree"
    folder = next(iter(make_plan([*TINY, line]).runs.values())).frozen("test", threads=1)
    folder.write_status(Status(State.cancelled))
    shown = planned(folders, line, workers=1)
    assert "already done: 0, to run: 1, cancelled: 1 (moe-sweeps retry --cancelled brings them back)" in shown


@pytest.mark.parametrize(
    ("line", "kept", "others"),
    [("engine.device=cpu,auto", "cpu", "auto"), ("trainer.log_every=5,7,9", "5", "7, 9")],
)
def test_an_axis_that_changes_nothing_is_named(folders: Path, line: str, kept: str, others: str) -> None:
    said = f"cannot change a result: runs are trained with {kept}, and not again with {others}"
    assert collapse_reasons(make_plan([*TINY, "aux.coef=0.1,0.2", line])) == [f"{line.partition('=')[0]} {said}"]


def test_replicates_are_a_factor_of_the_headline(folders: Path) -> None:
    text = planned(folders, "balancer=aux,lossfree", "seed=0,1", "fork.step=10", "fork.replicates=3", workers=1)
    assert "balancer (2) x seed (2) x fork.replicate (3) = 12 combinations" in text
    assert "Plan: fork.replicate (2) = 2" in planned(folders, "fork.step=10", "fork.replicates=2", workers=1)
