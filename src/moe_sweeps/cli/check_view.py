"""`moe-sweeps plan --check` in the terminal: progress, then what was found."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from moe_sweeps.data.memmap import TokenData
from moe_sweeps.data.prepare import prepared
from moe_sweeps.freeze import default_threads
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.manipulation import Checked, Finding, check, work
from moe_sweeps.sweep.plan import Plan, PlannedRun

MOST_CHANNELS = 4


def run_check(console: Console, plan: Plan, steps: int) -> bool:
    """Trace every arm for `steps` steps, print what was found, and say whether nothing is wrong."""
    launch = next(iter(plan.runs.values())).run.launch
    columns = (TextColumn("[progress.description]{task.description}"), BarColumn(24), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("manipulation check", total=work(plan))

        def tick(label: str) -> None:
            progress.update(task, description=label)
            progress.advance(task)

        found = check(plan, _data, steps, threads=launch.threads or default_threads(1), tick=tick)
    _print(console, found, steps)
    return found.clean


def _data(planned: PlannedRun) -> TokenData:
    return prepared(planned.run.data, resolve(planned.run.paths.data))


def _print(console: Console, found: Checked, steps: int) -> None:
    console.print(f"[bold]Manipulation check[/]: the first {steps} steps of every arm, at one seed", highlight=False)
    if found.arms:
        console.print(_table(found.arms, "claims to differ in"))
    if found.equivalents:
        same = sum(f.problem is None for f in found.equivalents)
        text = f"  {same} of {len(found.equivalents)} other spellings of a run gave bit-identical traces"
        console.print(text, highlight=False)
        bad = [f for f in found.equivalents if f.problem]
        if bad:
            console.print(_table(bad, "claims to differ in"))
    for key, arms in found.unread.items():
        where = f"{len(arms)} arm{'s' * (len(arms) > 1)}"
        console.print(
            f"  [yellow]not read so far[/]: {key}, which counts in {where}, was looked at by no code", highlight=False
        )
    problems = [f for f in (*found.arms, *found.equivalents) if f.problem]
    verdict = f"[bold red]{len(problems)} to look at[/]" if problems else "[green]every arm does what it says[/]"
    console.print(f"  {verdict}\n", highlight=False)


def _table(findings: list[Finding], claims: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("arm", "against", claims, "differs in (from step)", ""):
        table.add_column(name, overflow="fold")
    for f in findings:
        verdict = Text(f.problem, "bold red") if f.problem else Text("ok", "green")
        table.add_row(Text(f.arm), Text(f.against), Text(", ".join(f.claimed) or "nothing"), _seen(f), verdict)
    return table


def _seen(finding: Finding) -> Text:
    if not finding.seen:
        return Text("nothing")
    first = sorted(finding.seen.items(), key=lambda item: item[1])
    shown = ", ".join(f"{name} ({step})" for name, step in first[:MOST_CHANNELS])
    return Text(shown + (f" and {len(first) - MOST_CHANNELS} more" if len(first) > MOST_CHANNELS else ""))
