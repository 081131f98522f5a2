"""`moe-sweeps verify-resume` in the terminal."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from moe_sweeps.cli.explain import configured_run
from moe_sweeps.cli.roots import runs_root
from moe_sweeps.data.prepare import prepared
from moe_sweeps.experiment.identity import run_id
from moe_sweeps.experiment.schema import RunConfig
from moe_sweeps.host.output import not_waited_for
from moe_sweeps.host.signals import handled
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.fitting import require_memory
from moe_sweeps.sweep.resuming import KillSchedule, Verification, verify_resume

MOST_EXAMPLES = 3


def run_verify_resume(console: Console, words: Sequence[str], steps: int, kills: int) -> bool:
    """Train the run that `words` mean twice, once with kills; print the comparison and return whether they agree.

    The two run folders are removed when they agree or the user stops the command, and kept as evidence otherwise.
    """
    run = configured_run(words, runs_root())
    schedule = KillSchedule.of(run, steps, kills)
    require_memory([run])
    prepared(run.data, resolve(run.paths.data), progress=True)
    is_command_line = all("=" in word for word in words)
    folder = _new_folder(resolve(run.paths.runs) if is_command_line else runs_root())
    stop = _StopRequest()
    try:
        with handled(stop.note), not_waited_for():
            found = _with_progress(console, run, schedule, folder, stop)
    except KeyboardInterrupt:
        with handled(lambda signum, frame: None):  # an impatient further one leaves nothing behind
            shutil.rmtree(folder, ignore_errors=True)
        raise
    _print(console, run, found)
    if found.same:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"  both are kept in {folder}", highlight=False, markup=False, soft_wrap=True)
    return found.same


def _new_folder(root: Path) -> Path:
    """A folder beside the run folders, where there is room for checkpoints. Hidden, so no command reads it as a run."""
    root.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=".verify-resume-", dir=root))


class _StopRequest:
    """Whether a signal asked to stop. The signal only notes it; it is raised between two polls of a worker, so that no
    worker is left running."""

    def __init__(self) -> None:
        self.requested = False

    def note(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True

    def raise_if_requested(self) -> None:
        if self.requested:
            raise KeyboardInterrupt


def _with_progress(
    console: Console, run: RunConfig, schedule: KillSchedule, folder: Path, stop: _StopRequest
) -> Verification:
    columns = (TextColumn("[progress.description]{task.description}"), BarColumn(24), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        tasks = {name: progress.add_task(name, total=schedule.steps) for name in ("undisturbed", "killed")}

        def seen(name: str, step: int) -> None:
            progress.update(tasks[name], completed=step)
            stop.raise_if_requested()

        found = verify_resume(run, schedule, folder, seen)
        stop.raise_if_requested()
        return found


def _print(console: Console, run: RunConfig, found: Verification) -> None:
    compared = ", ".join(f"{name} {part.values}" for name, part in found.parts.items() if part.values)
    name = f"{run.run_name}-{run_id(run)}"
    lines = [f"{name}: the first {found.steps} of {run.trainer.steps} steps, trained twice here, a process at a time"]
    lines += [f"  killed (SIGKILL) after step {k.logged}, resumed from step {k.checkpoint}" for k in found.kills]
    lines += [f"  values compared: {compared}"]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if found.same:
        console.print("  [green]identical to the last bit[/]", highlight=False, markup=True)
        return
    console.print("  [bold red]not identical[/]", highlight=False, markup=True)
    for name, part in found.parts.items():
        if part.differences:
            first = "; ".join(part.differences[:MOST_EXAMPLES])
            more = " ..." if len(part.differences) > MOST_EXAMPLES else ""
            line = f"    {name}: {len(part.differences)} of {part.values}: {first}{more}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
