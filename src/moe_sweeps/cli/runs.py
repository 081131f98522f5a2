"""`moe-sweeps watch`, `retry`, `cancel`: follow, restart and stop runs (status.py shows them).

They read and write run folders, so they work from any shell, on any day, on any host that sees the folders. SLURM is
asked once, and only where the folder of a submitted run does not tell what the run is doing.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from moe_sweeps.cli.follow import (
    SweepView,
    exit_code,
    print_failures,
)
from moe_sweeps.cli.readying import Readied, is_allowed, make_ready, put_back_if_refused, refusal, require_trainable
from moe_sweeps.cli.roots import runs_root
from moe_sweeps.cli.select import Selection, select
from moe_sweeps.cli.watching import follow
from moe_sweeps.errors import ConfigError, LaunchError, MoeSweepsError, RunFolderError
from moe_sweeps.launch.follow import LOST, PAUSED, PRUNED, Follower, RunRow, is_lost, readable
from moe_sweeps.launch.slurm.agree import cancel_pending, with_queue
from moe_sweeps.paths import TRAIN
from moe_sweeps.records.manifest import Manifest, manifest_path
from moe_sweeps.records.rundir import FINISHED, RunDir, State, Status
from moe_sweeps.sweep.search.stop import request_stop

log = logging.getLogger(__name__)

START_ONE = f"Start one: {TRAIN} scale=smoke"
WHAT = "a sweep's id, name or folder, a run's id or folder, the beginning of an id, or settings (key=value)"
CANCEL_SECONDS = 30.0  # how long `cancel` waits for workers to save and stop
POLL_SECONDS = 0.5


def watch(arguments: argparse.Namespace, console: Console) -> int:
    """Follow runs until all are over, or nobody trains them. Ctrl-C leaves them alone."""
    return follow(console, selected(arguments.what).runs)


def retry(arguments: argparse.Namespace, console: Console) -> int:
    """Train runs again with their frozen configs: failed ones resume from checkpoints, finished ones restart."""
    _require_which(arguments)
    states = {State.failed, LOST}
    states |= {State.diverged} if arguments.diverged else set()
    states |= {State.cancelled} if arguments.cancelled else set()
    found = rows_of(selected(arguments.what))
    finished = _to_restart(found, arguments.other_code) if arguments.done else []
    rows = [row for row in found if row.state in states and row not in finished]
    if not rows and not finished:
        by = " by other code" if arguments.other_code else ""
        done = f"no run is done{by}, and " if arguments.done else ""
        console.print(f"{done}no run is {_or(sorted(states))}; nothing to retry")
        return 0
    again = _trainable(console, finished)
    with put_back_if_refused() as readied:
        ready = [r for r in _trainable(console, rows) if _is_ready(console, r, arguments.current_code, readied)]
        code = 1 if len(ready) + len(again) < len(rows) + len(finished) else 0
        ready += _superseded(console, again)
        return (_train_again(console, ready, arguments.workers) if ready else 1) or code


def _trainable(console: Console, rows: Sequence[RunRow]) -> list[RunRow]:
    """Those that nothing about the run itself refuses; the others are reported, and stay as they are."""
    return [row for row in rows if is_allowed(console, partial(require_trainable, row.folder))]


def _train_again(console: Console, rows: Sequence[RunRow], workers: int | None) -> int:
    """Train runs where they were trained before: as jobs of SLURM, or here. Returns the exit code."""
    on_slurm = [row for row in rows if _is_on_slurm(row)]
    if on_slurm:
        from moe_sweeps.cli.slurm import resubmit

        # A run that only looks lost may be trained by its job: what SLURM says of that job counts.
        ended_in = {row.folder.path.name: row.status.slurm_job_id for row in on_slurm if row.state != LOST}
        resubmit(console, [row.folder for row in on_slurm], runs_root(), ended_in)
    here = [row for row in rows if row not in on_slurm]
    return _retry_here(console, here, workers) if here else 0


def _is_ready(console: Console, row: RunRow, current_code: bool, readied: list[Readied]) -> bool:
    """Whether a run was made ready, and so is in `readied`. One that others train or retry is reported and left out."""
    return is_allowed(console, lambda: readied.append(make_ready(row.folder, row.status, current_code=current_code)))


def _is_on_slurm(row: RunRow) -> bool:
    return bool(row.folder.settings("launch").get("kind") == "slurm")


def _require_which(arguments: argparse.Namespace) -> None:
    """Refuse options that make no sense, and to restart every finished run only because no sweep or run was named."""
    if arguments.done and not (arguments.what or arguments.other_code):
        raise MoeSweepsError("train which finished runs again? Name sweeps or runs after --done, or add --other-code.")
    if arguments.workers is not None and arguments.workers < 1:
        fix = "Leave it out for as many as the run was started with."
        raise ConfigError("--workers", arguments.workers, "at least one process trains", fix)
    if arguments.other_code and not arguments.done:
        raise MoeSweepsError("--other-code says which finished runs are trained again. Write --done --other-code.")


def _to_restart(rows: Sequence[RunRow], other_code: bool) -> list[RunRow]:
    """Runs that have a result; with `other_code` only those that other code than the current trained."""
    finished = [row for row in rows if row.state in FINISHED]
    if not other_code:
        return finished
    from moe_sweeps.sweep.other_code import other_code_of

    found = other_code_of(row.folder for row in finished).trained
    return [row for row in finished if row.folder in found]


def _superseded(console: Console, finished: Sequence[RunRow]) -> list[RunRow]:
    """Move the results aside; returns the runs that are then to be trained."""
    if not finished:
        return []
    from moe_sweeps.launch.slurm.queue import require_slurm
    from moe_sweeps.sweep.again import SUPERSEDED, supersede

    if any(_is_on_slurm(row) for row in finished):
        require_slurm()  # a result that was moved aside does not come back
    again = []
    for row in finished:
        try:
            again += [row] if supersede(row.folder) is not None else []
        except (MoeSweepsError, OSError) as error:  # the others are trained all the same
            log.error("%s is left as it is: %s", row.folder.path.name, error)
    results = "1 result" if len(again) == 1 else f"{len(again)} results"
    console.print(f"{results} kept aside, in {SUPERSEDED}/ of each run's folder; no table counts them")
    return again


def _retry_here(console: Console, rows: Sequence[RunRow], asked: int | None) -> int:
    from moe_sweeps.launch.local import LocalSweep

    workers = _workers_that_fit(rows, min(asked or _workers(rows[0].folder), len(rows)))
    console.print(f"retrying {_count(len(rows), 'run')} with {_count(workers, 'worker')}")
    with SweepView(console, [(row.label, row.folder) for row in rows], workers) as view:
        LocalSweep([row.folder for row in rows], workers).run(view.tick)
    print_failures(console, view.rows)
    return exit_code(view.rows)


def _workers_that_fit(rows: Sequence[RunRow], wanted: int) -> int:
    """`wanted`, or fewer where this machine's memory holds fewer at once; refuses a run that does not fit at all."""
    from moe_sweeps.experiment.frozen import from_dict
    from moe_sweeps.sweep.fitting import Machine, require_memory
    from moe_sweeps.training.memory import run_memory

    runs = [from_dict(row.folder.config()) for row in rows]
    require_memory(runs)
    machine = Machine.here(runs[0].engine.device)
    return machine.side_by_side((run_memory(run, on_gpu=machine.has_gpu) for run in runs), wanted)


def cancel(arguments: argparse.Namespace, console: Console) -> int:
    """Ask workers to save their state and stop, and keep waiting runs from starting."""
    if not arguments.what and not arguments.all:
        raise MoeSweepsError("cancel what? Give a sweep or a run (moe-sweeps status lists them), or --all.")
    chosen = selected(arguments.what)
    searches = [manifest_path(runs_root(), m.sweep_id).parent for m in chosen.sweeps if m.search and not m.search.over]
    stopped = [is_allowed(console, partial(request_stop, search)) for search in searches]
    folders = readable([folder for _, folder in chosen.runs], lambda _, error: _print_left_alone(console, error))
    wanted = [folder for folder in folders if folder.status().state not in (*FINISHED, State.cancelled)]
    asked = _asked_to_stop(console, wanted)
    _leave_the_queue(asked)
    _print_cancelled(console, folders, asked, _settle(asked, CANCEL_SECONDS))
    return 0 if all(stopped) and len(asked) == len(wanted) else 1


def _print_left_alone(console: Console, error: RunFolderError) -> None:
    console.print(str(error), highlight=False, markup=False, soft_wrap=True)


def _asked_to_stop(console: Console, wanted: Sequence[RunDir]) -> list[RunDir]:
    """Those that could be asked, all before anything else: no waiting run starts when another stops.

    Raises:
        MoeSweepsError: none could be.
    """
    answers = [(folder, refusal(folder.request_cancel)) for folder in wanted]
    problems = list(dict.fromkeys(why for _, why in answers if why is not None))
    asked = [folder for folder, why in answers if why is None]
    if wanted and not asked:
        raise MoeSweepsError("\n".join(problems))
    for why in problems:
        console.print(why, highlight=False, markup=False, soft_wrap=True)
    return asked


def _leave_the_queue(asked: Sequence[RunDir]) -> None:
    try:
        cancel_pending(asked, runs_root())
    except LaunchError as error:
        log.warning("waiting jobs stay in SLURM's queue, and end at once when they start: %s", error)


def _print_cancelled(
    console: Console, folders: Sequence[RunDir], asked: Sequence[RunDir], stopping: Sequence[RunDir]
) -> None:
    counts = Counter(folder.status().name for folder in folders)
    console.print(", ".join(f"{n} {state}" for state, n in counts.items()), highlight=False)
    for folder in stopping:
        console.print(f"  {folder.path.name}: its worker stops after its current step", highlight=False, markup=False)
    if asked:
        console.print("`moe-sweeps retry --cancelled` resumes cancelled runs; nothing else does.", style="dim")


def add_commands(commands: Any) -> None:
    """Add the three commands to a parser's subcommands."""
    one = _command(commands, "watch", watch, "follow runs until they are over; Ctrl-C leaves them alone")
    one.add_argument("what", nargs="*", metavar="SWEEP|RUN", help=f"{WHAT} (default: everything)")
    one = _command(commands, "retry", retry, "train failed runs again, from their last checkpoints")
    one.add_argument("what", nargs="*", metavar="SWEEP|RUN", help=f"{WHAT} (default: everything that failed)")
    one.add_argument("--diverged", action="store_true", help="diverged runs, too")
    one.add_argument("--cancelled", action="store_true", help="cancelled runs, too")
    one.add_argument(
        "--done", action="store_true", help="finished runs, too, from their first step; old results are kept"
    )
    one.add_argument("--other-code", action="store_true", help="with --done: only those that other code trained")
    one.add_argument(
        "--current-code", action="store_true", help="with the current sources instead of the run's snapshot"
    )
    one.add_argument("--workers", type=int, help="processes (default: as when the run was started)")
    one = _command(
        commands, "cancel", cancel, "stop runs; their state is saved, and only `retry --cancelled` resumes them"
    )
    one.add_argument("what", nargs="*", metavar="SWEEP|RUN", help=WHAT)
    one.add_argument("--all", action="store_true", help="every run that is not over")


def _command(commands: Any, name: str, function: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    parser.set_defaults(command=function)
    return parser


def selected(words: Sequence[str]) -> Selection:
    """The runs that `words` mean.

    Raises:
        MoeSweepsError: there are none.
    """
    root = runs_root()
    chosen = select(words, root)
    if not chosen:
        raise MoeSweepsError(f"there are no runs in {root}. {START_ONE}")
    return chosen


def rows_of(chosen: Selection) -> list[RunRow]:
    """What the runs do, by their folders, and by SLURM where those do not tell."""
    rows = [_pruned(row, chosen.manifests) for row in Follower(chosen.runs).read()]
    try:
        return with_queue(rows)
    except LaunchError as error:
        log.warning("states are those of the run folders: %s", error)
        return rows


def _pruned(row: RunRow, sweeps: Sequence[Manifest]) -> RunRow:
    """A paused run is called pruned where its search is over and no other sweep trains it further."""
    if row.state != PAUSED:
        return row
    planned = [sweep.runs[row.folder.run_id] for sweep in sweeps if row.folder.run_id in sweep.runs]
    left = bool(planned) and all(run.pruned == row.status.step for run in planned)
    return dataclasses.replace(row, state=PRUNED) if left else row


def _settle(asked: Sequence[RunDir], seconds: float) -> list[RunDir]:
    """Wait until the runs that were asked to stop have stopped; returns those that are still training."""
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
        return False  # its worker sees the request; its lock may not be visible from this host
    try:
        with folder.lock():
            folder.settle_cancel_request(folder.status())
        return True
    except (MoeSweepsError, OSError):  # a worker has it, or its lock cannot be taken: the request stays
        return False


def _trained_on_another_host(folder: RunDir, found: Status) -> bool:
    return found.state is State.running and found.host != socket.gethostname() and not is_lost(folder, found)


def _workers(folder: RunDir) -> int:
    """As many as the run was started with, else one a core, or as many as fit on the GPUs."""
    from moe_sweeps.host.devices import Device
    from moe_sweeps.launch.gpus import side_by_side

    launch = folder.settings("launch")
    device = Device[folder.settings("engine").get("device", "auto")]
    return int(launch.get("workers") or side_by_side(device, launch.get("pack", 1)))


def _or(words: Sequence[str]) -> str:
    return " or ".join(words)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
