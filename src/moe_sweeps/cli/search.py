"""`search=tpe|random` with `python train.py -m` and `moe-sweeps plan`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from moe_sweeps.cli.code_view import code_lines, exit_code_by_code
from moe_sweeps.cli.follow import SweepView, print_failures
from moe_sweeps.cli.next_view import print_next
from moe_sweeps.cli.plan_view import text_lines
from moe_sweeps.cli.search_view import print_search_plan, print_trials
from moe_sweeps.errors import MoeSweepsError
from moe_sweeps.experiment.freeze import default_threads
from moe_sweeps.experiment.provenance import command_line
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.hardware import available_cores
from moe_sweeps.launch.follow import read_row
from moe_sweeps.records.manifest import Manifest
from moe_sweeps.results.definition import load_definition
from moe_sweeps.sweep.estimate import Estimator
from moe_sweeps.sweep.fitting import Machine, needed_text, require_memory
from moe_sweeps.sweep.other_code import OtherCode, other_code_of
from moe_sweeps.sweep.search.cost import SearchCost, search_cost
from moe_sweeps.sweep.search.drive import Search, drive
from moe_sweeps.sweep.search.plan import make_search_plan
from moe_sweeps.sweep.search.record import path_of
from moe_sweeps.training.memory import run_memory
from moe_sweeps.training.too_large import memory_text

OK, UNFINISHED = 0, 1
Check = Callable[[Sequence[RunConfig]], None]


def run_search(
    console: Console, overrides: Sequence[str], budget: str | None, check: Check, as_they_are: bool = False
) -> int:
    """Plan, print the plan, search, and print the trials. `check` refuses what this machine or the data cannot do.

    `as_they_are`: accept trials that other code trained.

    Raises:
        ConfigError: what was typed cannot be searched; nothing was started.
        OverBudget: the search can take longer than `budget`; nothing was started.
    """
    search, cost = _planned(console, overrides, budget, probing=True)
    code = _say_other_code(console, search, as_they_are)
    cost.require_disk()
    if not search.is_complete:
        check([run for _, run in search.plan.corners])
        _drive(console, search)
    print_trials(console, search)
    _print_end(console, search)
    return exit_code_by_code(console, code, OK if search.is_complete else UNFINISHED, as_they_are)


def _print_end(console: Console, search: Search) -> None:
    """Write the report of the search, and say where it is and what to type next."""
    from moe_sweeps.reports.write import write_tables  # pandas, which no plan needs

    path = path_of(search.plan)
    if search.folders and path.exists():
        written = write_tables(search.plan.runs_root, search.plan.reports_root, only=search.plan.search_id)
        rows = [read_row(label, folder) for label, folder in search.labelled_folders()]
        print_next(console, Manifest.load(path), written.page, rows)


def plan_search(console: Console, overrides: Sequence[str], budget: str | None, *, probing: bool) -> int:
    """What a search would do, without doing it."""
    search, _ = _planned(console, overrides, budget, probing=probing)
    _say_other_code(console, search, as_they_are=False)
    if not search.is_complete:
        require_memory([run for _, run in search.plan.corners])
    return OK


def refuse_for_search(option: str) -> None:
    """Refuse an option of `moe-sweeps plan` that is about the arms of a grid."""
    raise MoeSweepsError(f"{option} compares the arms of a grid, and a search has none before it runs. Leave it out.")


def _planned(
    console: Console, overrides: Sequence[str], budget: str | None, *, probing: bool
) -> tuple[Search, SearchCost]:
    plan = make_search_plan(overrides)
    load_definition(plan.name)  # a wrong tables/<name>.yaml is refused now,
    text_lines([plan.base])  # and missing text is refused before a probe trains
    launch, runs = plan.base.launch, plan.most_trained * len(plan.space.seeds)
    wanted = min(launch.workers or available_cores(), runs)
    machine = Machine.here(plan.base.engine.device)
    needs = max((run_memory(run, on_gpu=machine.has_gpu) for _, run in plan.corners), key=lambda one: one.estimate_ram)
    workers = machine.side_by_side([needs] * wanted, wanted)
    search = Search(plan, command_line(), workers)
    search.load()
    estimator = Estimator(plan.runs_root, launch.threads or default_threads(workers), probing=probing)
    cost = search_cost(plan, estimator, workers, _steps_trained(search))
    print_search_plan(console, search, cost)
    fewer = f", {workers} workers instead of {wanted}" if workers < wanted else ""
    text = f"  memory: about {memory_text(needs.estimate)} a run at most ({needed_text(needs)}){fewer}\n"
    console.print(text, highlight=False, soft_wrap=True)
    if budget:
        cost.require_budget(budget)
    return search, cost


def _say_other_code(console: Console, search: Search, as_they_are: bool) -> OtherCode:
    found = other_code_of(folder for _, folder in search.labelled_folders())
    for line in code_lines(found, search.plan.search_id, as_they_are):
        console.print(line, highlight=False, soft_wrap=True, markup=True)
    return found


def _steps_trained(search: Search) -> int:
    own = {run_id for trial in search.trials for run_id in trial.runs}
    return sum(search.folders[run_id].status().step for run_id in own if run_id in search.folders)


def _drive(console: Console, search: Search) -> None:
    view = SweepView(console, search.labelled_folders(), search.workers, timed=False)
    search.seen = view.add
    with view:
        drive(search, view.tick, view.say)
    print_failures(console, view.rows)
