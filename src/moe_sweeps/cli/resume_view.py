"""`moe-sweeps verify-resume` in the terminal."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from moe_sweeps.cli.explain import configured_run
from moe_sweeps.cli.roots import runs_root
from moe_sweeps.config.schema import RunConfig
from moe_sweeps.data.prepare import prepared
from moe_sweeps.identity import run_id
from moe_sweeps.paths import resolve
from moe_sweeps.sweep.resuming import Comparison, Trial, verify_resume

MOST_EXAMPLES = 3


def run_verify_resume(console: Console, words: Sequence[str], steps: int, kills: int) -> bool:
    """Kill the run that `words` mean, compare, print, and say whether all was the same.

    The folders are removed when it was, and when the user stops it; else they are evidence, and kept.
    """
    run = configured_run(words, runs_root())
    trial = Trial.of(run, steps, kills)
    prepared(run.data, resolve(run.paths.data), progress=True)
    typed = all("=" in word for word in words)
    folder = _new_folder(resolve(run.paths.runs) if typed else runs_root())
    try:
        with _stopped_like_ctrl_c():
            found = _with_progress(console, run, trial, folder)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _print(console, run, found)
    if found.same:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"  both are kept in {folder}", highlight=False, markup=False, soft_wrap=True)
    return found.same


def _new_folder(root: Path) -> Path:
    """Beside the run folders, where there is room for checkpoints; hidden, so that no command takes it for one."""
    root.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=".verify-resume-", dir=root))


@contextmanager
def _stopped_like_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP end the processes that train, too, and leave nothing behind."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _with_progress(console: Console, run: RunConfig, trial: Trial, folder: Path) -> Comparison:
    columns = (TextColumn("[progress.description]{task.description}"), BarColumn(24), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        tasks = {name: progress.add_task(name, total=trial.steps) for name in ("undisturbed", "killed")}

        def seen(name: str, step: int) -> None:
            progress.update(tasks[name], completed=step)

        return verify_resume(run, trial, folder, seen)


def _print(console: Console, run: RunConfig, found: Comparison) -> None:
    compared = ", ".join(f"{name} {part.values}" for name, part in found.parts.items() if part.values)
    name = f"{run.run_name}-{run_id(run)}"
    lines = [f"{name}: the first {found.steps} of {run.trainer.steps} steps, trained twice here, a process at a time"]
    lines += [f"  killed (SIGKILL) after step {k.logged}, went on from step {k.checkpoint}" for k in found.kills]
    lines += [f"  values compared: {compared}"]
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
