"""What happens on the cluster: a task trains its runs, and afterwards the batch shell decides what becomes of the job.

    python -m moe_sweeps.sweep.slurm.job run RECORD          in every task, started by srun
    python -m moe_sweeps.sweep.slurm.job judge RECORD CODE   once, when all tasks have ended

A job whose runs are over ends. One that was stopped or lost a task goes back to the queue, where it continues from the
last checkpoint, unless its runs keep dying without a new checkpoint, or somebody cancelled the job. SLURM itself
requeues at preemption and node loss.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from moe_sweeps.errors import RunBusyError
from moe_sweeps.rundir import SETTLED, Failure, RunDir, State
from moe_sweeps.sweep.slurm.queue import is_cancelled
from moe_sweeps.sweep.slurm.records import Record

OK, FAILED, UNFINISHED = 0, 1, 85


def main(arguments: Sequence[str]) -> int:
    """Entry point of both commands; returns the exit code."""
    command, record, *code = arguments
    folders = _folders(Record.read(Path(record)), int(os.environ["SLURM_ARRAY_TASK_ID"]))
    return run(folders) if command == "run" else judge(folders, int(code[0]))


def run(folders: Sequence[RunDir]) -> int:
    """Train the runs of this task: one with all ranks, or several side by side in a job of one rank."""
    if len(folders) == 1:
        from moe_sweeps.distributed import Ranks
        from moe_sweeps.sweep.process import work

        work(folders[0], Ranks.from_environment())
    else:
        from moe_sweeps.sweep.local import LocalSweep

        LocalSweep(list(folders), workers=len(folders)).run(tick=lambda: None)
    return OK if all(_is_over(f) for f in folders) else UNFINISHED


def judge(folders: Sequence[RunDir], code: int) -> int:
    """The exit code of the job, after it was sent back to the queue where that makes sense."""
    failed = [f for f in folders if f.status().state is State.failed]
    unfinished = [f for f in folders if not _is_over(f) and f not in failed]
    hopeless = [f for f in unfinished if _is_hopeless(f, code)]
    rest = [f for f in unfinished if f not in hopeless]
    if not rest:
        return FAILED if failed or hopeless else OK
    if is_cancelled(os.environ["SLURM_JOB_ID"], int(os.environ.get("SLURM_RESTART_COUNT") or 0)):
        return stay_away(rest)
    return requeue(rest)


def stay_away(folders: Sequence[RunDir]) -> int:
    """The job was cancelled: its runs wait until their line is typed again, or for `moe-sweeps retry`."""
    for folder in folders:
        print(f"{folder.path.name}: its job was cancelled at step {folder.status().step}")
        _set(folder, State.preempted)
    return UNFINISHED


def requeue(folders: Sequence[RunDir]) -> int:
    """Send this job back to the queue, where it waits under its own number."""
    for folder in folders:
        print(f"{folder.path.name}: unfinished at step {folder.status().step}; back to the queue")
        _set(folder, State.queued)
    code = subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False).returncode
    for folder in folders if code else ():  # this job does not come back
        _set(folder, State.preempted, died=False)
    return code


def _is_over(folder: RunDir) -> bool:
    """Whether nothing is left for a job to do: it has a result, was cancelled, or stopped at `trainer.stop_at`."""
    status = folder.status()
    return status.state in SETTLED or status.is_paused


def _is_hopeless(folder: RunDir, code: int) -> bool:
    """Whether attempt after attempt of this run ended without a new checkpoint; it is marked as failed then."""
    limit = int(folder.config()["launch"]["max_attempts_without_progress"])
    status = folder.status()
    status.count_death(folder.checkpoint_step())
    if status.deaths < limit:
        return False
    message = f"{limit} attempts in a row ended (the last with exit code {code}) without a new checkpoint"
    _set(folder, State.failed, Failure("NoProgress", f"{message}; see {folder.log}", "no progress under SLURM"))
    return True


def _set(folder: RunDir, state: State, failure: Failure | None = None, *, died: bool = True) -> None:
    try:
        with folder.lock(wait=10):
            status = folder.status()
            if died:
                status.count_death(folder.checkpoint_step())
            status.state, status.failure = state, failure
            folder.write_status(status)
    except RunBusyError as error:
        print(error)


def _folders(record: Record, index: int) -> list[RunDir]:
    return [RunDir(Path(record.runs_root) / name) for name in record.jobs[index]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
