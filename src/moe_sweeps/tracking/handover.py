"""The mirror: send the tracker what it does not hold yet, until the run is over."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from moe_sweeps.credentials import without_keys
from moe_sweeps.records.mirror import FOLDER, Record
from moe_sweeps.records.rundir import FINISHED, RunDir, State
from moe_sweeps.tracking.results import results_of
from moe_sweeps.tracking.rows import Rows
from moe_sweeps.tracking.tracker import Facts, Tracker

log = logging.getLogger(__name__)
POLL_SECONDS = 2.0
RETRY_SECONDS = 60.0  # between two attempts to reach a tracker


class Ending:
    """Whether training is over, and how."""

    def __init__(self) -> None:
        self.state: State | None = None
        self._over = threading.Event()

    def set(self, state: State | None) -> None:
        """Training is over, and the run is in `state`; None when its worker was lost."""
        self.state = state
        self._over.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of training, at most so many seconds; returns whether it is over."""
        return self._over.wait(seconds)


def hand_over(run: RunDir, new_tracker: Callable[[Record], Tracker], record: Record, ending: Ending) -> None:
    """Follow the run until it is over; afterwards the tracker holds each complete step once.

    Raises:
        Exception: whatever the tracker raises.
    """
    tracker, held = _connect(run, new_tracker, record, ending)
    rows, over = Rows(run.path, after=held), False
    while not over:
        over = ending.wait(POLL_SECONDS)
        before = record.last_step
        for row in rows.read():
            tracker.log(row)
            record.last_step = row.step
        if record.last_step != before:
            record.write(run)
    finished = ending.state in FINISHED
    if finished:
        last = rows.last()
        tracker.add_results(last, results_of(run, run.path / FOLDER, with_media=last is not None))
    tracker.end(ending.state)
    record.last_step, record.complete = rows.after, finished
    record.write(run)


def _connect(
    run: RunDir, new_tracker: Callable[[Record], Tracker], record: Record, ending: Ending
) -> tuple[Tracker, int]:
    """The tracker, and the newest step that it holds. Retried until it succeeds or training is over."""
    facts = Facts.of(run, run.path / FOLDER)
    while True:
        tracker = new_tracker(record)
        try:
            held = tracker.begin(facts)
        except Exception as error:
            log.warning("%s", without_keys(str(error)))
            record.problem = f"{record.destination}: {_first_line(error)}"
            record.write(run)
            if ending.wait(RETRY_SECONDS):
                raise
        else:
            record.problem, record.last_step, record.complete = None, held, False
            record.write(run)
            return tracker, held


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
