"""What happens on the cluster: tasks train their runs, and then the batch shell decides whether the job is requeued.

    python -m moe_sweeps.launch.slurm.job run RECORD          in every task, started by srun
    python -m moe_sweeps.launch.slurm.job judge RECORD CODE   once, when all tasks have ended

A job whose runs are over ends. One that was stopped or lost a task is requeued and resumes from the last checkpoints,
unless its runs keep dying without a new checkpoint, or somebody cancelled the job. SLURM itself requeues at preemption
and node loss; that, like scancel, does not count as a death of the run.

A job is always named by the array's number and its place in it (123_4): the bare SLURM_JOB_ID of one of the tasks is
that of the whole array.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_sweeps.errors import RunBusyError, RunFolderError
from moe_sweeps.host.consoles import say, show_what_can_be_shown
from moe_sweeps.host.machine_memory import OUT_OF_MEMORY, out_of_memory
from moe_sweeps.host.output import guarded
from moe_sweeps.launch.follow import readable
from moe_sweeps.launch.slurm.queue import JobEnd, why_it_ends
from moe_sweeps.launch.slurm.records import ArrayRecord
from moe_sweeps.records.rundir import SETTLED, Failure, RunDir, State
from moe_sweeps.records.status import Status, own_slurm_job, slurm_restarts

OK, FAILED, UNFINISHED = 0, 1, 85
LOCK_SECONDS = 10.0


def main(arguments: Sequence[str]) -> int:
    """Entry point of both commands; returns the exit code."""
    command, path, *code = arguments
    record = ArrayRecord.read(Path(path))
    record.require_owner()
    folders = _folders(record, int(os.environ["SLURM_ARRAY_TASK_ID"]))
    with guarded(may_be_lost=True):  # the job's output may go to a full disk
        show_what_can_be_shown()
        return run(folders) if command == "run" else judge(record, folders, int(code[0]))


def _say_left_out(folder: RunDir, error: RunFolderError) -> None:
    say(f"{folder.path.name} is left out: {error}")


def run(folders: Sequence[RunDir]) -> int:
    """Train the runs of this task: one with all ranks, or several side by side in a job of one rank."""
    found = readable(folders, _say_left_out)
    mine = [f for f in found if not _is_left_behind(f.status())]
    if len(mine) == 1:
        from moe_sweeps.distributed.ranks import Ranks
        from moe_sweeps.launch.work import work

        work(mine[0], Ranks.from_environment())
    else:
        from moe_sweeps.launch.local import LocalSweep

        LocalSweep(list(mine), workers=len(mine)).run(tick=lambda: None)
    left = readable(mine, _say_left_out)
    if not all(_is_over(f) for f in left):
        return UNFINISHED
    return OK if len(found) == len(folders) and len(left) == len(mine) else FAILED


def judge(record: ArrayRecord, folders: Sequence[RunDir], code: int) -> int:
    """Requeue the job where that makes sense; returns its exit code."""
    found = readable(folders, _say_left_out)
    left = [f for f in found if not (_is_over(f) or _is_left_behind(f.status()) or _is_anothers(f.status()))]
    if not left:
        is_well = len(found) == len(folders) and all(f.status().state is not State.failed for f in found)
        return OK if is_well else FAILED
    ending = why_it_ends(_own_task(), slurm_restarts(os.environ))
    say(f"the job ends: {ending}")
    if ending is JobEnd.requeued:  # runs that failed meanwhile are then trained again, too
        return to_the_queue(left)
    failed = [f for f in left if f.status().state is State.failed]
    rest = [f for f in left if f not in failed]
    if ending is JobEnd.cancelled:
        return stay_away(rest) if rest else FAILED
    if ending is not JobEnd.preempted:
        rest = [f for f in rest if _has_saved(f) or not _is_hopeless(f, record, code)]
    return requeue(rest, [f for f in left if f not in rest]) if rest else FAILED


def stay_away(folders: Sequence[RunDir]) -> int:
    """The job was cancelled: its runs wait until their command is run again."""
    for folder in folders:
        say(f"{folder.path.name}: its job was cancelled at step {folder.status().step}")
        _set(folder, State.preempted)
    return UNFINISHED


def to_the_queue(folders: Sequence[RunDir]) -> int:
    """SLURM has requeued this job: its runs are queued again."""
    for folder in folders:
        why = f" ({_out_of_memory(folder)})" if _out_of_memory(folder) else ""
        say(f"{folder.path.name}: unfinished at step {folder.status().step}{why}; back to the queue")
        _set(folder, State.queued)
    return UNFINISHED


def requeue(folders: Sequence[RunDir], without: Sequence[RunDir]) -> int:
    """Requeue this job, which keeps its number, for `folders`; the runs of `without` have no job any more."""
    to_the_queue(folders)
    for folder in without:
        _leave_behind(folder)
    code = subprocess.run(["scontrol", "requeue", _own_task()], check=False).returncode
    if code and why_it_ends(_own_task(), slurm_restarts(os.environ)) is JobEnd.requeued:
        return UNFINISHED  # SLURM did so itself
    for folder in folders if code else ():  # this job does not come back
        _set(folder, State.preempted)
    return code


def _is_over(folder: RunDir) -> bool:
    """Whether nothing is left for a job to do: it has a result, was cancelled, or stopped at `trainer.stop_at`."""
    status = folder.status()
    return status.state in SETTLED or status.is_paused


def _is_left_behind(status: Status) -> bool:
    """Whether it failed in a job that was requeued for its other runs alone."""
    return status.state is State.failed and status.slurm_job_id is None


def _is_anothers(status: Status) -> bool:
    """Whether another job has the run: it was retried while this one trained its other runs, or ended."""
    return status.slurm_job_id not in (None, _own_task())


def _has_saved(folder: RunDir) -> bool:
    """Whether its worker stopped in order and left a new checkpoint, as at a time limit: that is no death."""
    status = folder.status()
    return status.state is State.preempted and folder.checkpoint_step() > status.started_step


def _out_of_memory(folder: RunDir) -> str | None:
    """What to say of a worker of this job that the kernel killed for lack of memory; None: it did not, or nobody
    knows."""
    status = folder.status()
    return out_of_memory(status.host, status.oom_kills) if status.state is State.running else None


def _is_hopeless(folder: RunDir, record: ArrayRecord, code: int) -> bool:
    """Count a death of the run; returns whether too many in a row gave no new checkpoint, so that it has failed.

    A run that another job has by now is no reason to requeue this one, either.
    """
    limit = int(folder.settings("launch")["max_attempts_without_progress"])
    try:
        with folder.lock(wait=LOCK_SECONDS):
            status = folder.status()
            if _is_anothers(status):
                return True
            status.count_death(folder.checkpoint_step())
            hopeless = status.deaths >= limit
            if hopeless:
                status.failure = _no_progress(limit, code, _out_of_memory(folder), _log_of(folder, record))
                status.state = State.failed
            folder.write_status(status)
            return hopeless
    except RunBusyError as error:
        say(error)
        return False


def _no_progress(limit: int, code: int, out: str | None, log: Path) -> Failure:
    last = out or f"with exit code {code}"
    message = f"{limit} attempts in a row ended (the last {last}) without a new checkpoint; see {log}"
    if out:
        return Failure("OutOfMemory", message, OUT_OF_MEMORY)
    return Failure("NoProgress", message, "no progress under SLURM")


def _log_of(folder: RunDir, record: ArrayRecord) -> Path:
    """The run's log, or that of its job if no worker lived long enough to write one."""
    return folder.log if folder.log.exists() else record.log_of(_own_task())


def _set(folder: RunDir, state: State) -> None:
    _change(folder, state=state, failure=None)


def _leave_behind(folder: RunDir) -> None:
    """Note that a failed run has no job any more: the one that it had is requeued for the others."""
    _change(folder, slurm_job_id=None)


def _change(folder: RunDir, **changes: Any) -> None:
    try:
        with folder.lock(wait=LOCK_SECONDS):
            status = folder.status()
            if not _is_anothers(status):
                folder.write_status(replace(status, **changes))
    except RunBusyError as error:
        say(error)


def _own_task() -> str:
    """This job's name in SLURM's commands: 123_4."""
    task = own_slurm_job(os.environ)
    assert task is not None, "outside a job"
    return task


def _folders(record: ArrayRecord, index: int) -> list[RunDir]:
    return [RunDir(Path(record.runs_root) / name) for name in record.jobs[index]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
