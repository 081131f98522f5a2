"""`moe-sweeps status`, `watch`, `retry`, `cancel`: what runs are doing, and what becomes of them.

They read and write run folders, so they work from any shell, on any day, on any host that sees the folders. SLURM is
asked once where a run that waits was submitted to it.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from moe_sweeps.cli.follow import (
    SweepView,
    exit_code,
    headline,
    is_narrow,
    print_failures,
    print_tracking,
    status_table,
)
from moe_sweeps.cli.roots import runs_root
from moe_sweeps.cli.select import Selection, select
from moe_sweeps.cli.watching import follow
from moe_sweeps.errors import LaunchError, MoeSweepsError, RunBusyError
from moe_sweeps.results.manifest import Manifest
from moe_sweeps.rundir import FINISHED, RunDir, State, Status
from moe_sweeps.sweep.follow import LOST, PAUSED, PRUNED, Follower, Row, is_lost
from moe_sweeps.sweep.search.stop import request_stop
from moe_sweeps.sweep.slurm.agree import cancel_pending, repair, with_queue

log = logging.getLogger(__name__)

START_ONE = "Start one: python train.py scale=smoke"
MOST_RUNS, MOST_SWEEPS = 40, 10
CANCEL_SECONDS = 30.0  # how long `cancel` waits for workers to save and stop
POLL_SECONDS = 0.5


def status(arguments: argparse.Namespace, console: Console) -> int:
    """What runs are doing; exit code 1 when one failed."""
    chosen = _selected(arguments.what)
    rows = _rows(chosen)
    if arguments.repair:
        for folder in repair(rows):
            console.print(f"repaired: {folder.path.name}: {folder.status().state}", highlight=False, markup=False)
        rows = _rows(chosen)
    if not arguments.what and chosen.sweeps:
        console.print(_sweeps_table(chosen, rows, is_narrow(console)))
        console.print()
    console.print(status_table(rows, most=len(rows) if arguments.all else MOST_RUNS, narrow=is_narrow(console)))
    if chosen.never_started:
        console.print(f"{chosen.never_started} planned runs have no folder; the sweep's line typed again makes them")
    console.print() if any(row.state in (State.failed, LOST) for row in rows) else None
    failed = print_failures(console, rows)
    print_tracking(console, rows)
    return 1 if failed else 0


def watch(arguments: argparse.Namespace, console: Console) -> int:
    """Follow runs until all are over, or nobody trains them. Ctrl-C leaves them alone."""
    return follow(console, _selected(arguments.what).runs)


def retry(arguments: argparse.Namespace, console: Console) -> int:
    """Train failed runs again, from their last checkpoints, with their frozen configs."""
    states = {State.failed, LOST}
    states |= {State.diverged} if arguments.diverged else set()
    states |= {State.cancelled} if arguments.cancelled else set()
    rows = [row for row in _rows(_selected(arguments.what)) if row.state in states]
    if not rows:
        console.print(f"no run is {_or(sorted(states))}; nothing to retry")
        return 0
    for row in rows:
        make_ready(row.folder, current_code=arguments.current_code)
    on_slurm = [row for row in rows if row.folder.config()["launch"].get("kind") == "slurm"]
    if on_slurm:
        from moe_sweeps.cli.slurm import resubmit

        resubmit(console, [row.folder for row in on_slurm], runs_root())
    here = [row for row in rows if row not in on_slurm]
    return _retry_here(console, here, arguments.workers) if here else 0


def _retry_here(console: Console, rows: Sequence[Row], asked: int | None) -> int:
    from moe_sweeps.sweep.local import LocalSweep

    workers = min(asked or _workers(rows[0].folder), len(rows))
    console.print(f"trying {len(rows)} {'run' if len(rows) == 1 else 'runs'} again with {workers} workers")
    with SweepView(console, [(row.label, row.folder) for row in rows], workers) as view:
        LocalSweep([row.folder for row in rows], workers).run(view.tick)
    print_failures(console, view.rows)
    return exit_code(view.rows)


def cancel(arguments: argparse.Namespace, console: Console) -> int:
    """Ask workers to save their state and stop, and keep waiting runs from starting."""
    if not arguments.what and not arguments.all:
        raise MoeSweepsError("cancel what? Give a sweep or a run (moe-sweeps status lists them), or --all.")
    chosen = _selected(arguments.what)
    for manifest in chosen.sweeps:
        if manifest.search and not manifest.search.get("over"):
            request_stop(runs_root() / "sweeps" / manifest.sweep_id)
    folders = [folder for _, folder in chosen.runs]
    asked = [folder for folder in folders if folder.status().state not in (*FINISHED, State.cancelled)]
    for folder in asked:  # all of them first, so that no waiting one starts in the place of another
        folder.request_cancel()
    cancel_pending(asked, runs_root())
    stopping = _settle(asked, CANCEL_SECONDS)
    counts = Counter(str(folder.status().state) for folder in folders)
    console.print(", ".join(f"{n} {state}" for state, n in counts.items()), highlight=False)
    for folder in stopping:
        console.print(f"  {folder.path.name}: its worker stops after its current step", highlight=False, markup=False)
    if asked:
        console.print("`moe-sweeps retry --cancelled` goes on with cancelled runs; nothing else does.", style="dim")
    return 0


def make_ready(folder: RunDir, current_code: bool = False) -> None:
    """Let a run that failed, diverged or was cancelled be trained again. The summary of a diverged run is kept aside.

    Raises:
        RunBusyError: somebody trains it at this moment.
    """
    with folder.lock():
        found = folder.status()
        summary = folder.path / "summary.json"
        if summary.exists():
            summary.replace(folder.path / f"summary.attempt-{found.attempt}.json")
        folder.drop_cancel_request()
        if current_code:
            folder.update_provenance(snapshot=None)
        found.state, found.failure = State.preempted if found.attempt else State.planned, None
        found.deaths, found.death_step, found.paused_at = 0, -1, None
        folder.write_status(found)


def add_commands(commands: Any) -> None:
    """Add the four commands to a parser's sub-commands."""
    what = "a sweep's id or name, a run's id or folder, or the beginning of an id"
    one = _command(commands, "status", status, "what runs are doing, and why failed ones failed")
    one.add_argument("what", nargs="*", metavar="SWEEP|RUN", help=f"{what} (default: everything)")
    one.add_argument("--repair", action="store_true", help="write down what SLURM says of runs whose jobs are gone")
    one.add_argument("--all", action="store_true", help=f"list every run, also when there are more than {MOST_RUNS}")
    one = _command(commands, "watch", watch, "follow runs until they are over; Ctrl-C leaves them alone")
    one.add_argument("what", nargs="*", metavar="SWEEP|RUN", help=f"{what} (default: everything)")
    one = _command(commands, "retry", retry, "train failed runs again, from their last checkpoints")
    one.add_argument("what", nargs="*", metavar="SWEEP|RUN", help=f"{what} (default: everything that failed)")
    one.add_argument("--diverged", action="store_true", help="diverged runs, too")
    one.add_argument("--cancelled", action="store_true", help="cancelled runs, too")
    one.add_argument("--current-code", action="store_true", help="with today's sources instead of the run's snapshot")
    one.add_argument("--workers", type=int, help="processes (default: as it was submitted)")
    one = _command(commands, "cancel", cancel, "stop runs; their state is saved, and they do not start by themselves")
    one.add_argument("what", nargs="*", metavar="SWEEP|RUN", help=what)
    one.add_argument("--all", action="store_true", help="every run that is not over")


def _command(commands: Any, name: str, function: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.set_defaults(command=function)
    return parser


def _selected(words: Sequence[str]) -> Selection:
    root = runs_root()
    chosen = select(words, root)
    if not chosen:
        raise MoeSweepsError(f"there are no runs in {root}. {START_ONE}")
    return chosen


def _rows(chosen: Selection) -> list[Row]:
    """What the runs do: by their folders, and by SLURM where those leave it open."""
    rows = [_pruned(row, chosen.sweeps) for row in Follower(chosen.runs).read()]
    try:
        return with_queue(rows)
    except LaunchError as error:
        log.warning("states are those of the run folders: %s", error)
        return rows


def _pruned(row: Row, sweeps: Sequence[Manifest]) -> Row:
    """A paused run that a search left where it stands, and no other sweep waits for, is called pruned."""
    if row.state != PAUSED:
        return row
    planned = [sweep.runs[row.folder.run_id] for sweep in sweeps if row.folder.run_id in sweep.runs]
    left = bool(planned) and all(run.pruned == row.status.step for run in planned)
    return dataclasses.replace(row, state=PRUNED) if left else row


def _sweeps_table(chosen: Selection, rows: Sequence[Row], narrow: bool) -> Table:
    """The newest sweeps, one row each, newest last."""
    by_folder = {row.folder.path.name: row for row in rows}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("sweep", "name", "started", "runs"):
        table.add_column(name, no_wrap=name != "runs" or not narrow)
    if not narrow:
        table.add_column("command", no_wrap=True, overflow="ellipsis", max_width=60)
    for manifest in reversed(chosen.sweeps[:MOST_SWEEPS]):
        own = [by_folder[run.folder] for run in manifest.runs.values() if run.folder in by_folder]
        started = manifest.created[:16].replace("T", " ")
        table.add_row(manifest.sweep_id, manifest.name, started, headline(own), *([] if narrow else [manifest.command]))
    return table


def _settle(asked: Sequence[RunDir], seconds: float) -> list[RunDir]:
    """Wait until the runs that were asked to stop have stopped; returns those that are still at it."""
    deadline = time.monotonic() + seconds
    waiting = list(asked)
    while waiting := [folder for folder in waiting if not _is_settled(folder)]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return waiting


def _is_settled(folder: RunDir) -> bool:
    found = folder.status()
    if _trained_on_another_host(folder, found):
        return False  # its worker sees the request; the lock need not reach from there to here
    try:
        with folder.lock():
            folder.settle_cancel_request(folder.status())
        return True
    except RunBusyError:
        return False


def _trained_on_another_host(folder: RunDir, found: Status) -> bool:
    return found.state is State.running and found.host != socket.gethostname() and not is_lost(folder, found)


def _workers(folder: RunDir) -> int:
    """As the run was submitted, else as many as there are cores, or fit on the GPUs."""
    from moe_sweeps.config.groups import Device
    from moe_sweeps.sweep.gpus import side_by_side

    config = folder.config()
    device = Device[config.get("engine", {}).get("device", "auto")]
    return int(config["launch"].get("workers") or side_by_side(device, config["launch"].get("pack", 1)))


def _or(words: Sequence[str]) -> str:
    return " or ".join(words)
