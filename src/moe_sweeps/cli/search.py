"""`search=tpe|random` with `python train.py -m` and `moe-sweeps plan`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from moe_sweeps.cli.follow import SweepView, print_failures
from moe_sweeps.cli.search_view import print_search_plan, print_trials
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.freeze import default_threads
from moe_sweeps.hardware import available_cores
from moe_sweeps.provenance import command_line
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.search.cost import SearchCost, search_cost
from moe_sweeps.sweep.search.drive import Search, drive
from moe_sweeps.sweep.search.plan import SearchPlan, make_search_plan

OK, UNFINISHED = 0, 1
Check = Callable[[Sequence[RunConfig]], None]


def run_search(console: Console, overrides: Sequence[str], budget: str | None, check: Check) -> int:
    """Plan, print the plan, search, and print the trials. `check` refuses what this machine or the data cannot do.

    Raises:
        ConfigError: what was typed cannot be searched; nothing was started.
        OverBudget: it can take longer than `budget`; nothing was started.
    """
    search, cost = _planned(console, overrides, budget, probing=True)
    cost.require_disk()
    if not search.is_complete:
        check([run for _, run in search.plan.corners])
        _drive(console, search)
    print_trials(console, search)
    return OK if search.is_complete else UNFINISHED


def plan_search(console: Console, overrides: Sequence[str], budget: str | None, *, probing: bool) -> int:
    """What a search would do, without doing it."""
    _planned(console, overrides, budget, probing=probing)
    return OK


def refuse_for_search(option: str) -> None:
    """Refuse an option of `moe-sweeps plan` that speaks of the arms of a grid."""
    raise MoeSweepsError(f"{option} compares the arms of a grid, and a search has none before it runs. Leave it out.")


def _planned(
    console: Console, overrides: Sequence[str], budget: str | None, *, probing: bool
) -> tuple[Search, SearchCost]:
    plan = make_search_plan(overrides)
    launch, runs = plan.base.launch, plan.most_trained * len(plan.space.seeds)
    workers = min(launch.workers or available_cores(), runs)
    search = Search(plan, command_line(), workers)
    search.load()
    estimator = Estimator(plan.runs_root, launch.threads or default_threads(workers), probing=probing)
    cost = search_cost(plan, estimator, workers, _steps_trained(search, plan))
    print_search_plan(console, search, cost)
    if budget:
        cost.require_budget(budget)
    return search, cost


def _steps_trained(search: Search, plan: SearchPlan) -> int:
    own = {run_id for trial in search.trials for run_id in trial.runs}
    return sum(search.folders[run_id].status().step for run_id in own if run_id in search.folders)


def _drive(console: Console, search: Search) -> None:
    view = SweepView(console, search.labelled_folders(), search.workers, timed=False)
    search.seen = view.add
    with view:
        drive(search, view.tick, view.say)
    print_failures(console, view.rows)
