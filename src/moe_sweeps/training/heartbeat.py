"""The heartbeat of a worker: status.json while it trains, requests to cancel, and news of the tracker."""

from __future__ import annotations

import logging
import threading

from moe_sweeps.errors import DiskFull
from moe_sweeps.records.mirror import Mirror
from moe_sweeps.records.rundir import RunDir, Status
from moe_sweeps.training.journal import Observer
from moe_sweeps.training.stop_flag import Event, StopFlag

log = logging.getLogger(__name__)
STATUS_SECONDS = 1.0


class Heartbeat:
    """Keeps status.json up to date where it `writes`, and passes everything on to another observer.

    A thread writes, so that a long step, an evaluation or the preparation of data does not look like a dead worker. It
    also looks for requests to cancel the run and for problems of its `mirror` in a tracker.
    """

    mirror: Mirror | None = None

    def __init__(
        self, folder: RunDir, status: Status, stop: StopFlag, then: Observer | None = None, writes: bool = True
    ) -> None:
        self.folder, self.status, self.stop, self.then, self.writes = folder, status, stop, then, writes
        self._thread = threading.Thread(target=self._beat_until_over, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self.write()
        if self.writes:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.writes:
            self.stop.events.put(Event.over)
            self._thread.join()

    def logged(self, step: int, values: dict[str, float], tokens_per_second: float) -> None:
        """Put the values of a logged step into the status."""
        self.status.tokens_per_second = round(tokens_per_second, 1)
        self.status.loss, self.status.maxvio = values.get("loss"), values.get("maxvio_batch")
        self.status.collapsed = bool(values.get("collapsed"))
        self.status.step = step
        if self.then:
            self.then.logged(step, values, tokens_per_second)

    def alive(self, step: int) -> None:
        """Write the status, if it is time."""
        self.status.step = step
        if self.then:
            self.then.alive(step)

    def write(self) -> None:
        """Write status.json now, if this process is the one that writes it."""
        if self.writes:
            self.folder.write_status(self.status)

    def note_tracker(self, problem: str | None) -> None:
        """Record what is wrong with the tracker, None for nothing. Training continues in any case."""
        if problem and problem != self.status.tracking:
            log.warning("tracking: %s", problem)
        self.status.tracking = problem

    def end_mirror(self) -> None:
        """Tell the tracker how the run ended, and give it a few seconds for the rest. The run does not depend on it."""
        if self.mirror:
            self.note_tracker(self.mirror.end(self.status.state))
            self.folder.write_status(self.status, beat=False)

    def _beat_until_over(self) -> None:
        while (event := self.stop.next_event(STATUS_SECONDS)) is not Event.over:
            if event is Event.stop_requested:
                log.info("stopping after this step; its state will be saved (Ctrl-C again: stop at once)")
            else:
                self._beat()

    def _beat(self) -> None:
        if self.folder.cancel_requested:
            self.stop.cancel()
        self.note_tracker(self.mirror.problem() if self.mirror else None)
        try:
            self.write()
        except (OSError, DiskFull) as error:  # training continues, and ends where it cannot save
            log.warning("status.json could not be written: %s", error)
