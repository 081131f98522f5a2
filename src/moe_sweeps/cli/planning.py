"""`moe-sweeps plan` and `moe-sweeps why`: what a command would do, and why two runs are the same or not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from moe_sweeps.cli.imports import lasting
from moe_sweeps.host.folding import Column, FoldedTable

if TYPE_CHECKING:
    from moe_sweeps.sweep.cost import PlanCost
    from moe_sweeps.sweep.detect import Asked, Measured
    from moe_sweeps.sweep.estimate import Estimator
    from moe_sweeps.sweep.other_code import OtherCode
    from moe_sweeps.sweep.plan import Plan, PlannedRun
    from moe_sweeps.sweep.why import Difference, Subject

OK, NEW, FAILED = 0, 1, 1
MOST_LISTED = 40
AS_JSON = "as one JSON document, for programs; docs/json.md has its fields"


def plan(arguments: argparse.Namespace, console: Console) -> int:
    """What a sweep would do, without doing it."""
    with lasting():
        from moe_sweeps.sweep.plan import make_plan
        from moe_sweeps.sweep.search.space import asks_for_search

    if asks_for_search(arguments.overrides):
        return _plan_search(arguments, console)
    found = make_plan(arguments.overrides)
    cost, estimator = costs(found, probing=not arguments.no_probe)
    if arguments.json:
        return _plan_as_data(arguments, console, found, cost, estimator)
    show(console, found, cost)
    print_power(console, found)
    _list_runs(console, found)
    if arguments.detect is not None:
        detect(console, found, arguments.detect)
    cost.require_memory()
    if arguments.budget:
        require_budget(found, cost, arguments.budget, arguments.overrides, estimator)
    return check(console, found, arguments.steps) if arguments.check else OK


def _plan_as_data(
    arguments: argparse.Namespace, console: Console, found: Plan, cost: PlanCost, estimator: Estimator
) -> int:
    """The plan as a document, or its refusal."""
    from moe_sweeps.cli.documents.document import print_document
    from moe_sweeps.cli.documents.plan import detect_data, plan_document
    from moe_sweeps.errors import ConfigError
    from moe_sweeps.sweep.other_code import other_code
    from moe_sweeps.sweep.worth import worth

    if arguments.check:
        raise ConfigError("--check", True, "it prints what it trains", "Run it without --json.")
    cost.require_memory()
    if arguments.budget:
        require_budget(found, cost, arguments.budget, arguments.overrides, estimator)
    code = other_code((planned.run, planned.folder) for planned in found.runs.values())
    wanted = None if arguments.detect is None else detect_data(arguments.detect, *_for_detect(found, arguments.detect))
    print_document(console, plan_document(found, cost, code, wanted, worth(found)))
    return OK


def _plan_search(arguments: argparse.Namespace, console: Console) -> int:
    from moe_sweeps.cli.search import plan_search, refuse_for_search

    if arguments.check:
        refuse_for_search("--check")
    if arguments.detect is not None:
        refuse_for_search("--detect")
    return plan_search(console, arguments.overrides, arguments.budget, probing=not arguments.no_probe)


def costs(found: Plan, *, probing: bool = True) -> tuple[PlanCost, Estimator]:
    """What the rest of a plan costs on this machine, estimated from finished runs or by a probe."""
    from moe_sweeps.cli.plan_view import text_lines
    from moe_sweeps.config.groups import SlurmConfig
    from moe_sweeps.experiment.freeze import default_threads
    from moe_sweeps.launch.gpus import side_by_side
    from moe_sweeps.records.rundir import SETTLED
    from moe_sweeps.sweep.cost import plan_cost
    from moe_sweeps.sweep.estimate import Estimator

    require_table(found)
    text_lines(p.run for p in found.to_train.values())  # missing text is refused before a probe trains
    first = next(iter(found.runs.values())).run
    launch = first.launch
    todo = sum(1 for p in found.to_train.values() if p.state not in SETTLED)
    if isinstance(launch, SlurmConfig):
        at_hand = launch.max_parallel or todo
    else:
        at_hand = side_by_side(first.engine.device, launch.pack)
    workers = min(launch.workers or at_hand, max(todo, 1)) or 1
    estimator = Estimator(found.runs_root, launch.threads or default_threads(workers), probing=probing)
    return plan_cost(found, estimator, workers), estimator


def require_table(found: Plan) -> None:
    """Refuse a plan with runs to train if its table's file is wrong, before they cost anything.

    Raises:
        ConfigError: tables/<name>.yaml cannot be used.
    """
    from moe_sweeps.records.rundir import SETTLED
    from moe_sweeps.results.definition import load_definition

    if any(p.state not in SETTLED for p in found.runs.values()):
        file = found.grid.file
        load_definition((file.table if file else "") or found.name)


def show(
    console: Console, found: Plan, cost: PlanCost, *, sweeping: bool = False, as_they_are: bool = False
) -> OtherCode:
    """Print the plan; returns which of its runs rest on other code than the current.

    `sweeping`: the manifest is written next, so that commands will know the sweep's id. `as_they_are`: such results are
    accepted.
    """
    from moe_sweeps.cli.code_view import code_lines
    from moe_sweeps.cli.plan_view import print_plan
    from moe_sweeps.records.manifest import manifest_path
    from moe_sweeps.sweep.other_code import other_code

    code = other_code((planned.run, planned.folder) for planned in (found.trunks | found.runs).values())
    is_known = sweeping or manifest_path(found.runs_root, found.sweep_id).exists()
    print_plan(console, found, cost, code_lines(code, found.sweep_id if is_known else None, as_they_are))
    return code


def require_budget(found: Plan, cost: PlanCost, budget: str, overrides: Sequence[str], estimator: Estimator) -> None:
    """Refuse a plan that does not fit its budget."""
    from moe_sweeps.sweep.budget import require_budget as require

    require(found, cost, budget, overrides, estimator)


def detect(console: Console, found: Plan, difference: float) -> None:
    """Print how many seeds show `difference`, for the size and length of the plan's first run."""
    from moe_sweeps.cli.plan_view import print_detect

    print_detect(console, difference, *_for_detect(found, difference))


def print_power(console: Console, found: Plan) -> None:
    """Print what the plan finds, by the spread of finished runs."""
    from moe_sweeps.cli.plan_view import print_worth
    from moe_sweeps.sweep.worth import untold, worth

    print_worth(console, worth(found), untold(found))


def _for_detect(found: Plan, difference: float) -> tuple[Measured | None, Asked]:
    """The noise of runs like the plan's first, and the table that the plan leads to.

    Raises:
        ConfigError: there is no such difference.
    """
    from moe_sweeps.errors import ConfigError
    from moe_sweeps.sweep.detect import Asked
    from moe_sweeps.sweep.fork_noise import noise_for

    if not difference > 0:
        raise ConfigError("--detect", difference, "a difference to detect is above 0", "Write --detect 0.002.")
    noise = noise_for(found)
    return noise, Asked.of_plan(found, noise)


def check(console: Console, found: Plan, steps: int) -> int:
    """Train a few steps of every arm and compare what happened with what the arms claim."""
    from moe_sweeps.cli.check_view import run_check

    return OK if run_check(console, found, steps) else FAILED


def why(arguments: argparse.Namespace, console: Console) -> int:
    """Explain two runs, or one line: exit code 0 when they are the same run, 1 when they are not."""
    from moe_sweeps.cli.naming import Line, named
    from moe_sweeps.cli.roots import runs_root
    from moe_sweeps.errors import MoeSweepsError
    from moe_sweeps.records.find import find_run
    from moe_sweeps.sweep.why import Subject

    root = runs_root()
    what = named(arguments.subjects)
    subjects = [Subject.of_folder(find_run(name, root)) for name in what if isinstance(name, str)]
    subjects += [Subject.of_line(line.settings) for line in what if isinstance(line, Line)]
    if not subjects:
        subjects.append(Subject.of_line([]))
    if len(subjects) == 1 and subjects[0].folder is None:
        return (
            _why_as_data(console, *_counterpart(subjects[0])) if arguments.json else _explain_line(console, subjects[0])
        )
    if len(subjects) != 2:
        raise MoeSweepsError(
            "give two runs, a run and overrides (key=value), or overrides alone; a run alone has no counterpart."
        )
    return _why_as_data(console, *subjects) if arguments.json else _explain_two(console, *subjects)


def _why_as_data(console: Console, a: Subject, b: Subject | None) -> int:
    from moe_sweeps.cli.documents.document import print_document
    from moe_sweeps.cli.documents.why import why_document

    found = why_document(a, b)
    print_document(console, found)
    return OK if found.same else NEW


def _counterpart(line: Subject) -> tuple[Subject, Subject | None]:
    """The run that overrides mean; if there is none, the nearest."""
    from moe_sweeps.paths import resolve
    from moe_sweeps.records.rundir import RunDir
    from moe_sweeps.sweep.why import Subject, nearest_run

    root = resolve(line.run.paths.runs)
    folder = RunDir.find(root, line.run_id)
    return line, Subject.of_folder(folder) if folder is not None else nearest_run(line, root)


def _explain_line(console: Console, line: Subject) -> int:
    near = _counterpart(line)[1]
    if near is not None and near.folder is not None and near.run_id == line.run_id:
        state = near.folder.status().name
        console.print(f"{line.name}: this is run {near.name} ({state})", highlight=False, markup=False)
        _print_differences(
            console, line, near, "Keys in which these overrides differ from its config, and why they do not count"
        )
        return OK
    console.print(f"{line.name}: this is a new run, {line.run_id}", highlight=False, markup=False)
    if near is not None:
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
    for letter, one in (("A", a), ("B", b)):
        name = "these overrides" if one.folder is None else one.name
        console.print(f"  {letter}: {name}", highlight=False, markup=False, soft_wrap=True)
    console.print(_table(found, "A", "B"))
    for files in (d.files for d in found if d.files):  # not in the table, whose columns would cut their names
        console.print(Text(f"the training code differs in: {files}"), soft_wrap=True)


def _table(found: Sequence[Difference], a: str, b: str) -> FoldedTable:
    columns = [Column("key"), Column(a, folds=True, told=True), Column(b, folds=True, told=True), Column("counts")]
    rows: list[list[Text | str]] = [
        [d.key, d.a, d.b, Text("yes", "bold yellow") if d.counts else Text("no"), d.reason] for d in found
    ]
    return FoldedTable([*columns, Column("why", folds=True, told=True)], rows)


def _is_repeated(planned: PlannedRun, found: Plan) -> bool:
    return "fork.replicate" in found.axes and planned.run_id in found.runs


def _list_runs(console: Console, found: Plan) -> None:
    runs = list((found.trunks | found.runs).values())
    for planned in runs[:MOST_LISTED]:
        seed = f"  seed={planned.run.seed}" if "seed" in found.axes else ""
        seed += f"  replicate={planned.run.fork.replicate}" if _is_repeated(planned, found) else ""
        console.print(f"  {planned.run_id}  {planned.state:<9}  {planned.label}{seed}", highlight=False, markup=False)
    if len(runs) > MOST_LISTED:
        console.print(f"  and {len(runs) - MOST_LISTED} more", highlight=False)
    console.print()


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The two commands and their options."""
    one = commands.add_parser("plan", help="what python train.py -m would do and cost, without running anything")
    one.add_argument("overrides", nargs="*")
    one.add_argument(
        "--budget", metavar="TIME", help="refuse a plan that takes longer than 2h, 30m, ..., and say what would fit"
    )
    one.add_argument(
        "--detect", metavar="NATS", type=float, help="how many seeds show this difference in validation loss"
    )
    one.add_argument(
        "--no-probe",
        action="store_true",
        help="estimate sizes without finished runs by arithmetic, not by training a few steps",
    )
    one.add_argument(
        "--check", action="store_true", help="train a few steps of every arm: do arms differ where they claim?"
    )
    one.add_argument("--steps", metavar="N", type=int, default=20, help="steps of --check (default: 20)")
    one.add_argument("--json", action="store_true", help=AS_JSON)
    one.set_defaults(command=plan)
    one = commands.add_parser(
        "why", help="why two runs differ (why A B), or which run overrides mean (why key=value ...)"
    )
    one.add_argument("subjects", nargs="*", help="run ids, names or folders; or overrides: key=value ...")
    one.add_argument("--json", action="store_true", help=AS_JSON)
    one.set_defaults(command=why)
