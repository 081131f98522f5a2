"""`moe-sweeps plan --check` in the terminal: progress, then what was found."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.freeze import default_threads
from moe_sweeps.host.folding import Column, FoldedTable
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.manipulation import ArmCheck, Checked, check, count_traces
from moe_sweeps.sweep.plan import Plan, PlannedRun

MOST_CHANNELS = 4


def run_check(console: Console, plan: Plan, steps: int) -> bool:
    """Trace every arm for `steps` steps and print the findings; returns whether there is no problem."""
    launch = next(iter(plan.runs.values())).run.launch
    columns = (
        TextColumn("{task.description}", style="progress.description", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("manipulation check", total=count_traces(plan))

        def tick(label: str) -> None:
            progress.update(task, description=label)
            progress.advance(task)

        found = check(plan, _data, steps, threads=launch.threads or default_threads(1), tick=tick)
    _print(console, found, steps)
    return found.clean


def _data(planned: PlannedRun) -> TokenData:
    return prepared(planned.run.data, resolve(planned.run.paths.data))


def _print(console: Console, found: Checked, steps: int) -> None:
    console.print(
        f"[bold]Manipulation check[/]: the first {steps} steps of every arm, at one seed", highlight=False, markup=True
    )
    if found.arms:
        console.print(_table(found.arms))
    if found.equivalents:
        same = sum(f.problem is None for f in found.equivalents)
        text = f"  {same} of {len(found.equivalents)} other spellings of a run gave bit-identical traces"
        console.print(text, highlight=False)
        bad = [f for f in found.equivalents if f.problem]
        if bad:
            console.print(_table(bad))
    for key, arms in found.unread.items():
        where = f"{len(arms)} arm{'s' * (len(arms) > 1)}"
        text = f"[yellow]not read in these steps[/]: {escape(key)}, though it is part of {where}"
        console.print(f"  {text}", highlight=False, markup=True)
    problems = [f for f in (*found.arms, *found.equivalents) if f.problem]
    verdict = (
        f"[bold red]{len(problems)} problem{'s' * (len(problems) > 1)}[/]"
        if problems
        else "[green]every arm differs where it claims to[/]"
    )
    console.print(f"  {verdict}\n", highlight=False, markup=True)


def _table(findings: list[ArmCheck]) -> FoldedTable:
    rows = []
    for f in findings:
        verdict = Text(f.problem, "bold red") if f.problem else Text("ok", "green")
        rows.append([verdict, Text(f.arm), Text(f.against), Text(", ".join(f.claimed) or "nothing"), _seen(f)])
    names = ("arm", "against", "claims to differ in", "differs in (from step)")
    columns = [Column("verdict", folds=True, told=True), *(Column(name, folds=True, told=True) for name in names)]
    return FoldedTable(columns, rows)


def _seen(finding: ArmCheck) -> Text:
    if not finding.seen:
        return Text("nothing")
    first = sorted(finding.seen.items(), key=lambda item: item[1])
    shown = ", ".join(f"{name} ({step})" for name, step in first[:MOST_CHANNELS])
    return Text(shown + (f" and {len(first) - MOST_CHANNELS} more" if len(first) > MOST_CHANNELS else ""))
