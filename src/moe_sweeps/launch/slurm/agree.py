"""What run folders and SLURM say together: heartbeats first, then one squeue, and only where it can matter.

A job that vanished before it began leaves its run `queued` forever. A worker that died leaves its run `running`, though
SLURM has requeued its job. Both are shown as what they are, and `repair` writes that into the folders.
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
from moe_sweeps.launch.follow import LOST, RunRow, is_silent
from moe_sweeps.launch.slurm.others import hidden_tasks, known_users, other_users
from moe_sweeps.launch.slurm.queue import READING_SECONDS, WAITING, Job, call, ended_jobs, own_jobs, require
from moe_sweeps.launch.slurm.records import PREFIX, all_records
from moe_sweeps.records.rundir import RunDir, State

log = logging.getLogger(__name__)

# Seconds between two calls of squeue while runs are followed: the shortest, doubled each time that there is nothing new
# to ask, up to the longest.
SHORTEST_WAIT, LONGEST_WAIT = 15.0, 120.0
NO_REASON = ("", "None")
Question = tuple[str, str, int]


class Queue:
    """SLURM's answer about runs whose folders do not tell what they do, for all of them at once and as rarely as
    possible.

    A run with a recent heartbeat is not asked about.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, patience: Sequence[float] = ()) -> None:
        self._now, self._patience = now, patience
        self._jobs: dict[str, Job] = {}
        self._asked: frozenset[Question] = frozenset()  # what the last answer is about
        self._hidden: frozenset[str] = frozenset()  # jobs of other users that squeue may not show
        self._asked_at, self._wait = -math.inf, SHORTEST_WAIT
        self._ends: dict[str, str] | None = {}  # how jobs ended; None where there is no accounting

    def with_queue(self, rows: Sequence[RunRow]) -> list[RunRow]:
        """`rows` with the states that folders and SLURM give together.

        Raises:
            LaunchError: squeue exists and does not answer. It is then not called for a while.
        """
        questions = frozenset(_question(row) for row in rows if _depends_on_queue(row))
        if not questions or shutil.which("squeue") is None:
            return list(rows)
        wait = self._wait if questions <= self._asked else SHORTEST_WAIT
        if self._now() - self._asked_at >= wait:
            self._wait = min(2 * wait, LONGEST_WAIT)
            self._ask(questions, _roots(rows))
        return [self._agreed(row) if _depends_on_queue(row) else row for row in rows]

    def _ask(self, questions: frozenset[Question], roots: frozenset[Path]) -> None:
        self._asked_at = self._now()  # also after an error
        others = frozenset[int]().union(*map(other_users, roots))
        self._jobs = own_jobs(self._patience, READING_SECONDS, known_users(others))
        self._hidden, self._asked = _hidden(roots), questions
        seconds_left = max(1.0, READING_SECONDS - (self._now() - self._asked_at))
        self._ask_how_they_ended(frozenset(task for task, *_ in questions) - self._jobs.keys(), seconds_left)

    def _ask_how_they_ended(self, gone: frozenset[str], seconds: float) -> None:
        if self._ends is None or not gone - self._ends.keys():
            return
        try:
            self._ends |= dict.fromkeys(gone, "") | ended_jobs(gone, seconds)
        except LaunchError as error:
            log.debug("no accounting: %s", error)
            self._ends = None

    def _agreed(self, row: RunRow) -> RunRow:
        """The row, corrected by the queue. A row that the last answer does not cover stays as it is."""
        task = str(row.status.slurm_job_id)
        job = self._jobs.get(task)
        if task in self._hidden if job is None else not is_ours(job):
            return row
        if job is not None and job.state in WAITING:
            return replace(row, state=State.queued, note="" if job.reason in NO_REASON else job.reason)
        if job is not None:  # SLURM says that it runs, so a silent heartbeat does not count
            return replace(row, state=State.running, note="") if row.state == LOST else row
        if _question(row) not in self._asked:
            return row
        if row.state == State.failed:
            return row
        state = LOST if row.state in (State.queued, State.running) else row.state
        return replace(row, state=state, note=(self._ends or {}).get(task, ""))


def with_queue(rows: Sequence[RunRow]) -> list[RunRow]:
    """`rows` with the states that folders and SLURM give together; squeue is called once, or not at all.

    Raises:
        LaunchError: squeue exists and does not answer.
    """
    return Queue().with_queue(rows)


def confirmed(rows: Sequence[RunRow]) -> list[RunRow]:
    """The same, for `repair`: where a state depends on SLURM, its absence is an error.

    Raises:
        LaunchError: squeue is missing, or does not answer.
    """
    if any(_depends_on_queue(row) for row in rows):
        require("squeue")
    return with_queue(rows)


def repair(rows: Iterable[RunRow]) -> list[RunDir]:
    """Write the states that `with_queue` found into the run folders; returns the folders that changed.

    A run that is trained at this moment is left alone, and so is a lost one whose job squeue may hide.
    """
    rows = list(rows)
    hidden = _hidden(_roots(rows))
    return [r.folder for r in rows if not (r.state == LOST and r.status.slurm_job_id in hidden) and _repair(r)]


def cancel_pending(folders: Sequence[RunDir], runs_root: Path) -> list[str]:
    """Cancel the waiting jobs of these runs, those whose runs are all among them; returns their names.

    A job that has begun meanwhile is left alone: its worker sees the request to cancel and saves its state. A person
    waits for this, so a controller that is down is not waited for.

    Raises:
        LaunchError: scancel exists, and it or squeue does not answer.
    """
    wanted = {folder.path.name for folder in folders if folder.status().slurm_job_id}
    if not wanted or shutil.which("scancel") is None:
        return []
    names = {
        task: record.name
        for record in all_records(runs_root)
        for task, runs in zip(record.task_names(), record.jobs, strict=False)
        if wanted.issuperset(runs)
    }
    # SLURM gives numbers a second time, so a job of this number may be anything.
    jobs = own_jobs((), READING_SECONDS).items()
    tasks = [task for task, job in jobs if names.get(task) == job.name and job.state in WAITING]
    if tasks:
        call("scancel", "--state=PENDING", *tasks, patience=(), seconds=READING_SECONDS)
    return tasks


def is_ours(job: Job) -> bool:
    """Whether its name is that of a record: runs that were started inside another job know only its number."""
    return job.name.startswith(f"{PREFIX}-")


def _roots(rows: Iterable[RunRow]) -> frozenset[Path]:
    return frozenset(row.folder.path.parent for row in rows if row.status.slurm_job_id is not None)


def _hidden(roots: Iterable[Path]) -> frozenset[str]:
    return frozenset[str]().union(*(hidden_tasks(root, other_users(root), READING_SECONDS) for root in roots))


def _depends_on_queue(row: RunRow) -> bool:
    if row.status.slurm_job_id is None:
        return False
    return row.state in (State.queued, State.preempted, State.failed, LOST) or is_silent(row.status)


def _question(row: RunRow) -> Question:
    """What is asked of SLURM: a job, and what the folder says of its run."""
    return str(row.status.slurm_job_id), str(row.state), row.status.attempt


def _repair(row: RunRow) -> bool:
    if row.status.slurm_job_id is None or row.state not in (State.queued, LOST) or row.state == row.status.state:
        return False
    try:
        with row.folder.lock():
            status = row.folder.status()
            if status.state is not row.status.state or status.attempt != row.status.attempt:
                return False  # something happened since it was read
            if row.state == State.queued:  # SLURM has requeued its job, which does not count as a death
                status.state = State.queued
            else:
                status.state, status.slurm_job_id = State.preempted if status.attempt else State.planned, None
            row.folder.write_status(status)
            return True
    except RunBusyError:
        return False
