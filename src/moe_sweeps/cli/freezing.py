"""The run folders of a plan. One that is damaged, or not writable for this user, stops its own run alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rich.console import Console

from moe_sweeps.errors import MoeSweepsError, NotWritable, RunFolderError
from moe_sweeps.host.files import NOT_ALLOWED
from moe_sweeps.host.locks import not_writable
from moe_sweeps.records.rundir import SETTLED, RunDir
from moe_sweeps.sweep.plan import Plan, PlannedRun


def frozen_runs(
    plan: Plan, frozen: Callable[[PlannedRun], RunDir]
) -> tuple[dict[str, RunDir], dict[str, MoeSweepsError]]:
    """Run id -> folder, made or found by `frozen`; and for the other runs, run id -> why there is none.

    Raises:
        NotWritable: this user can write none of the runs that are left to train.
    """
    folders: dict[str, RunDir] = {}
    refused: dict[str, MoeSweepsError] = {}
    for run_id, planned in plan.to_train.items():
        try:
            folders[run_id] = frozen(planned)
        except (RunFolderError, NotWritable) as error:
            refused[run_id] = error
        except OSError as error:
            if error.errno not in NOT_ALLOWED:
                raise
            refused[run_id] = not_writable(error)
    closed = [error for error in refused.values() if isinstance(error, NotWritable)]
    if closed and len(closed) == sum(p.state not in SETTLED for p in plan.to_train.values()):
        raise closed[0]
    return folders, refused


def print_refused(console: Console, plan: Plan, refused: Mapping[str, MoeSweepsError]) -> None:
    """Which runs were left out, and why."""
    for run_id, error in refused.items():
        planned = plan.to_train[run_id]
        console.print(f"left out: {planned.label} seed={planned.run.seed}", style="bold red", markup=False)
        console.print(f"  {error}", highlight=False, markup=False, soft_wrap=True)
