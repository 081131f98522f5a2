"""`moe-sweeps verify-resume` in the terminal."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from moe_sweeps.cli.explain import configured_run
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.prepare import prepared
from moe_sweeps.identity import run_id
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.resuming import Comparison, verify_resume

MOST_EXAMPLES = 3


def run_verify_resume(console: Console, words: list[str], root: Path, steps: int, kills: int) -> bool:
    """Kill the run that `words` mean, compare, print, and say whether all was the same. Nothing of it is kept, but for
    the folders of runs that were not."""
    run = configured_run(words, root)
    prepared(run.data, resolve(run.paths.data), progress=True)
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".verify-resume-", dir=root))
    differ = False
    try:
        found = _with_progress(console, run, folder, steps, kills)
        differ = not found.same
        _print(console, run, found)
    finally:
        if differ:
            console.print(f"  both are kept in {folder}", highlight=False, markup=False, soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return not differ


def _with_progress(console: Console, run: RunConfig, folder: Path, steps: int, kills: int) -> Comparison:
    columns = (TextColumn("[progress.description]{task.description}"), BarColumn(24), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        tasks = {
            name: progress.add_task(name, total=min(steps, run.trainer.steps)) for name in ("undisturbed", "killed")
        }

        def seen(name: str, step: int) -> None:
            progress.update(tasks[name], completed=step)

        return verify_resume(run, folder, steps=steps, kills=kills, step_seen=seen)


def _print(console: Console, run: RunConfig, found: Comparison) -> None:
    steps = f"step{'s' * (len(found.killed_after) > 1)} {' and '.join(map(str, found.killed_after))}"
    compared = ", ".join(f"{name} {part.values}" for name, part in found.parts.items() if part.values)
    lines = [
        f"{run.run_name}-{run_id(run)}: the first {found.steps} of {run.trainer.steps} steps, trained twice",
        f"  killed after {steps} (SIGKILL) and started again: {found.attempts} processes in place of one",
        f"  values compared: {compared}",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if found.same:
        console.print("  [green]the same to the last bit[/]", highlight=False)
        return
    console.print("  [bold red]not the same[/]", highlight=False)
    for name, part in found.parts.items():
        if part.differences:
            first = "; ".join(part.differences[:MOST_EXAMPLES])
            more = " ..." if len(part.differences) > MOST_EXAMPLES else ""
            line = f"    {name}: {len(part.differences)} of {part.values}: {first}{more}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
