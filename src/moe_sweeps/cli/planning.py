"""`moe-sweeps plan` and `moe-sweeps why`: what a line would do, and why two runs are or are not the same."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moe_sweeps.cli.imports import lasting

if TYPE_CHECKING:
    from moe_sweeps.sweep.cost import PlanCost
    from moe_sweeps.sweep.estimate import Estimator
    from moe_sweeps.sweep.plan import Plan
    from moe_sweeps.sweep.why import Difference, Subject

OK, NEW, FAILED = 0, 1, 1
MOST_LISTED = 40


def plan(arguments: argparse.Namespace, console: Console) -> int:
    """What a sweep would do, without doing it."""
    with lasting():
        from moe_sweeps.sweep.plan import make_plan
        from moe_sweeps.sweep.search.space import asks_for_search

    if asks_for_search(arguments.overrides):
        return _plan_search(arguments, console)
    found = make_plan(arguments.overrides)
    cost, estimator = costs(found, probing=not arguments.no_probe)
    show(console, found, cost)
    _list_runs(console, found)
    if arguments.detect is not None:
        detect(console, found, arguments.detect)
    if arguments.budget:
        require_budget(found, cost, arguments.budget, arguments.overrides, estimator)
    return check(console, found, arguments.steps) if arguments.check else OK


def _plan_search(arguments: argparse.Namespace, console: Console) -> int:
    from moe_sweeps.cli.search import plan_search, refuse_for_search

    if arguments.check:
        refuse_for_search("--check")
    if arguments.detect is not None:
        refuse_for_search("--detect")
    return plan_search(console, arguments.overrides, arguments.budget, probing=not arguments.no_probe)


def costs(found: Plan, *, probing: bool = True) -> tuple[PlanCost, Estimator]:
    """What is left of a plan costs so much on this machine, by finished runs or by a probe."""
    from moe_sweeps.config.groups import SlurmConfig
    from moe_sweeps.freeze import default_threads
    from moe_sweeps.rundir import SETTLED
    from moe_sweeps.sweep.cost import plan_cost
    from moe_sweeps.sweep.estimate import Estimator
    from moe_sweeps.sweep.gpus import side_by_side

    first = next(iter(found.runs.values())).run
    launch = first.launch
    todo = sum(1 for p in found.runs.values() if p.state not in SETTLED)
    if isinstance(launch, SlurmConfig):
        at_hand = launch.max_parallel or todo
    else:
        at_hand = side_by_side(first.engine.device, launch.pack)
    workers = min(launch.workers or at_hand, max(todo, 1)) or 1
    estimator = Estimator(found.runs_root, launch.threads or default_threads(workers), probing=probing)
    return plan_cost(found, estimator, workers), estimator


def show(console: Console, found: Plan, cost: PlanCost) -> None:
    """Print the plan."""
    from moe_sweeps.cli.plan_view import print_plan

    print_plan(console, found, cost)


def require_budget(found: Plan, cost: PlanCost, budget: str, overrides: Sequence[str], estimator: Estimator) -> None:
    """Refuse a plan that does not fit its budget."""
    from moe_sweeps.sweep.budget import require_budget as require

    require(found, cost, budget, overrides, estimator)


def detect(console: Console, found: Plan, difference: float) -> None:
    """Print how many seeds show `difference`, for every size that the plan has."""
    from moe_sweeps.cli.plan_view import print_detect
    from moe_sweeps.errors import ConfigError
    from moe_sweeps.sweep.detect import measured_noise

    if not difference > 0:
        raise ConfigError("--detect", difference, "a difference to detect is above 0", "Write --detect 0.002.")
    first = next(iter(found.runs.values())).run
    seeds = len({(p.run.seed, p.run.effective_data_seed) for p in found.runs.values()})
    print_detect(console, difference, measured_noise(found.runs_root, first), seeds)


def check(console: Console, found: Plan, steps: int) -> int:
    """Train a few steps of every arm and compare what happened with what the arms claim."""
    from moe_sweeps.cli.check_view import run_check

    return OK if run_check(console, found, steps) else FAILED


def why(arguments: argparse.Namespace, console: Console) -> int:
    """Explain two runs, or one line: exit code 0 when they are the same run, 1 when they are not."""
    from moe_sweeps.cli.roots import runs_root
    from moe_sweeps.errors import MoeSweepsError
    from moe_sweeps.sweep.why import Subject, find_run

    root = runs_root()
    names = [s for s in arguments.subjects if "=" not in s]
    line = [s for s in arguments.subjects if "=" in s]
    subjects = [Subject.of_folder(find_run(name, root)) for name in names]
    if line or not subjects:
        subjects.append(Subject.of_line(line))
    if len(subjects) == 1 and subjects[0].folder is None:
        return _explain_line(console, subjects[0])
    if len(subjects) != 2:
        raise MoeSweepsError("why compares two runs, or a run and a line, or says which run a line means.")
    return _explain_two(console, *subjects)


def _explain_line(console: Console, line: Subject) -> int:
    from moe_sweeps.paths import resolve
    from moe_sweeps.rundir import RunDir
    from moe_sweeps.sweep.why import Subject, nearest_runs

    root = resolve(line.run.paths.runs)
    folder = RunDir.find(root, line.run_id)
    if folder is not None:
        found = Subject.of_folder(folder)
        console.print(f"{line.name}: this is run {folder.path.name} ({folder.status().state})", highlight=False)
        _print_differences(
            console, line, found, "Keys in which the line differs from its config, and why they do not count"
        )
        return OK
    console.print(f"{line.name}: this is a new run, {line.run_id}", highlight=False, markup=False)
    for near in nearest_runs(line, root):
        _print_differences(console, line, near, f"The nearest run is {near.name}")
    return NEW


def _explain_two(console: Console, a: Subject, b: Subject) -> int:
    same = a.run_id == b.run_id
    text = f"{a.name} and {b.name} are " + ("the same run" if same else f"two runs ({a.run_id}, {b.run_id})")
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    _print_differences(console, a, b, "")
    return OK if same else NEW


def _print_differences(console: Console, a: Subject, b: Subject, title: str) -> None:
    from moe_sweeps.sweep.why import differences, version_differences

    found = [*differences(a, b), *version_differences(a, b)]
    if not found:
        console.print("  no key differs", highlight=False)
        return
    if title:
        console.print(Text(title))
    console.print(_table(found, a.name, b.name))


def _table(found: Sequence[Difference], a: str, b: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("key", no_wrap=True)
    table.add_column(Text(a), overflow="fold", max_width=24)
    table.add_column(Text(b), overflow="fold", max_width=24)
    table.add_column("counts")
    table.add_column("why")
    for d in found:
        table.add_row(
            d.key, Text(d.a), Text(d.b), Text("yes", "bold yellow") if d.counts else Text("no"), Text(d.reason)
        )
    return table


def _list_runs(console: Console, found: Plan) -> None:
    runs = list(found.runs.values())
    for planned in runs[:MOST_LISTED]:
        seed = f"  seed={planned.run.seed}" if "seed" in found.axes else ""
        console.print(f"  {planned.run_id}  {planned.state:<9}  {planned.label}{seed}", highlight=False, markup=False)
    if len(runs) > MOST_LISTED:
        console.print(f"  and {len(runs) - MOST_LISTED} more", highlight=False)
    console.print()


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The two commands and their options."""
    one = commands.add_parser(
        "plan", help="what a sweep would do and cost: python train.py -m, without running anything"
    )
    one.add_argument("overrides", nargs="*")
    one.add_argument(
        "--budget", metavar="TIME", help="refuse a plan that takes longer than 2h, 30m, ..., and say what fits"
    )
    one.add_argument(
        "--detect", metavar="NATS", type=float, help="how many seeds show this difference in validation loss"
    )
    one.add_argument(
        "--no-probe", action="store_true", help="estimate without training a few steps where no run is finished"
    )
    one.add_argument(
        "--check", action="store_true", help="train a few steps of every arm: do arms differ where they claim?"
    )
    one.add_argument("--steps", metavar="N", type=int, default=20, help="steps of --check (default: 20)")
    one.set_defaults(command=plan)
    one = commands.add_parser(
        "why", help="why two runs differ (why A B), or which run a line means (why key=value ...)"
    )
    one.add_argument("subjects", nargs="*", help="run ids, names or folders; key=value for a line")
    one.set_defaults(command=why)
