"""What the run folders say beside what SLURM says: heartbeats first, one squeue second, and only where it can matter.

A job that vanished before it began leaves a run `queued` for ever; a run whose worker died without a word waits in the
queue once SLURM has requeued its job. Both are shown as what they are, and `repair` writes it down.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from moe_sweeps.errors import LaunchError, RunBusyError
from moe_sweeps.rundir import RunDir, State
from moe_sweeps.sweep.follow import LOST, Row, is_silent
from moe_sweeps.sweep.slurm.queue import BACK_OFF, WAITING, Job, call, ended_jobs, own_jobs
from moe_sweeps.sweep.slurm.records import all_records

log = logging.getLogger(__name__)

# Seconds between two questions of somebody who follows runs: so long at least, and twice as long each time that there
# is nothing new to ask.
SHORTEST_WAIT, LONGEST_WAIT = 15.0, 120.0
NO_REASON = ("", "None")
Question = tuple[str, str, int]


class Queue:
    """SLURM's word about runs that leave a question open, asked for all of them at once, and as rarely as can be.

    A run that says by its heartbeat that it is trained is not asked about.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, patience: Sequence[float] = ()) -> None:
        self._now, self._patience = now, patience
        self._jobs: dict[str, Job] = {}
        self._asked: frozenset[Question] = frozenset()  # what the last answer is about
        self._asked_at, self._wait = -math.inf, SHORTEST_WAIT
        self._ends: dict[str, str] | None = {}  # how jobs ended; None where there is no accounting

    def with_queue(self, rows: Sequence[Row]) -> list[Row]:
        """`rows` with the states that folders and SLURM together give.

        Raises:
            LaunchError: squeue exists and does not answer. It is then left in peace for a while.
        """
        questions = frozenset(_question(row) for row in rows if _depends_on_queue(row))
        if not questions or shutil.which("squeue") is None:
            return list(rows)
        wait = self._wait if questions <= self._asked else SHORTEST_WAIT
        if self._now() - self._asked_at >= wait:
            self._wait = min(2 * wait, LONGEST_WAIT)
            self._ask(questions)
        return [self._agreed(row) if _depends_on_queue(row) else row for row in rows]

    def _ask(self, questions: frozenset[Question]) -> None:
        self._asked_at = self._now()  # also after an error
        self._jobs, self._asked = own_jobs(self._patience), questions
        self._ask_how_they_ended(frozenset(task for task, *_ in questions) - self._jobs.keys())

    def _ask_how_they_ended(self, gone: frozenset[str]) -> None:
        if self._ends is None or not gone - self._ends.keys():
            return
        try:
            self._ends |= dict.fromkeys(gone, "") | ended_jobs(gone)
        except LaunchError as error:
            log.debug("no accounting: %s", error)
            self._ends = None

    def _agreed(self, row: Row) -> Row:
        """A job that runs speaks for itself, by its heartbeat. What the last answer is not about stays as it is."""
        task = str(row.status.slurm_job_id)
        job = self._jobs.get(task)
        if job is not None and job.state in WAITING:
            return replace(row, state=State.queued, note="" if job.reason in NO_REASON else job.reason)
        if job is not None or _question(row) not in self._asked:
            return row
        state = LOST if row.state in (State.queued, State.running) else row.state
        return replace(row, state=state, note=(self._ends or {}).get(task, ""))


def with_queue(rows: Sequence[Row]) -> list[Row]:
    """`rows` with the states that folders and SLURM together give; squeue is asked once, or not at all.

    Raises:
        LaunchError: squeue exists and does not answer.
    """
    return Queue(patience=BACK_OFF).with_queue(rows)


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
    if row.status.slurm_job_id is None:
        return False
    return row.state in (State.queued, State.preempted, LOST) or is_silent(row.status)


def _question(row: Row) -> Question:
    """What an answer of SLURM is about: a job, and what the folder said of its run then."""
    return str(row.status.slurm_job_id), str(row.state), row.status.attempt


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
