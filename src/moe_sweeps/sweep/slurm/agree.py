"""What the run folders say beside what SLURM says: heartbeats first, one squeue second, and only where it can matter.

A job that vanished before it began leaves a run `queued` for ever; a run whose worker died without a word waits in the
queue once SLURM has requeued its job. Both are shown as what they are, and `repair` writes it down.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from moe_sweeps.errors import RunBusyError
from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.follow import LOST, Row
from moe_sweeps.sweep.slurm.queue import Job, call, own_jobs
from moe_sweeps.sweep.slurm.records import all_records

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


def with_queue(rows: Sequence[Row]) -> list[Row]:
    """`rows` with the states that folders and SLURM together give; squeue is asked once, or not at all.

    Raises:
        LaunchError: squeue exists and does not answer.
    """
    if not any(_depends_on_queue(row) for row in rows) or shutil.which("squeue") is None:
        return list(rows)
    jobs = own_jobs()
    return [replace(row, state=_state(row, jobs)) if _depends_on_queue(row) else row for row in rows]


def repair(rows: Iterable[Row]) -> list[RunDir]:
    """Write the states that `with_queue` found into the folders; returns those that were changed.

    A run that is trained at this moment is left alone.
    """
    return [row.folder for row in rows if _repair(row)]


def cancel_pending(folders: Sequence[RunDir], runs_root: Path) -> list[str]:
    """Take the waiting jobs of these runs out of the queue, where all of a job's runs are among them.

    A job that has begun meanwhile is not touched: its worker sees the request to cancel and saves its state.

    Raises:
        LaunchError: scancel exists and does not answer.
    """
    wanted = {folder.path.name for folder in folders if folder.status().slurm_job_id}
    if not wanted or shutil.which("scancel") is None:
        return []
    tasks = [
        f"{record.job_id}_{index}"
        for record in all_records(runs_root)
        for index, names in enumerate(record.jobs)
        if record.job_id is not None and wanted.issuperset(names)
    ]
    tasks = [task for task, job in own_jobs().items() if task in set(tasks) and job.state in WAITING]
    if tasks:
        call("scancel", "--state=PENDING", *tasks)
    return tasks


def _depends_on_queue(row: Row) -> bool:
    return row.status.slurm_job_id is not None and row.state in (State.queued, State.preempted, LOST)


def _state(row: Row, jobs: dict[str, Job]) -> str:
    """A job that runs speaks for itself, by its heartbeat."""
    job = jobs.get(str(row.status.slurm_job_id))
    if job is None:
        return LOST if row.state == State.queued else row.state
    return State.queued if job.state in WAITING else row.state


def _repair(row: Row) -> bool:
    if row.status.slurm_job_id is None or row.state not in (State.queued, LOST) or row.state == row.status.state:
        return False
    try:
        with row.folder.lock():
            status = row.folder.status()
            if status.state is not row.status.state or status.attempt != row.status.attempt:
                return False  # something happened since it was read
            if status.state is State.running:
                status.count_death(row.folder.checkpoint_step())
            if row.state == State.queued:
                status.state = State.queued
            else:
                status.state, status.slurm_job_id = State.preempted if status.attempt else State.planned, None
            row.folder.write_status(status)
            return True
    except RunBusyError:
        return False
