"""The process around a mirror: it holds the lock, reads how the run ended, and ends in time whatever happens."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moe_sweeps.credentials import hide_keys_in_logs, without_keys
from moe_sweeps.host.consoles import log_plainly
from moe_sweeps.host.output import standard_output_may_be_lost
from moe_sweeps.host.signals import STOP_SIGNALS
from moe_sweeps.records.mirror import OWN_SECONDS, Record, destination_of
from moe_sweeps.records.rundir import RunDir, State
from moe_sweeps.tracking.handover import Ending, hand_over
from moe_sweeps.tracking.rows import Row
from moe_sweeps.tracking.tracker import Facts, Results, Tracker

log = logging.getLogger(__name__)
FAILED, LATE = 1, 3
LOCK_SECONDS = 60.0
HOPELESS_SECONDS = 1.0  # at the end of the run, for a tracker that has failed so far
LOOK_SECONDS = 0.1
NICE = 5  # training goes first


def main(path: str, settings_json: str) -> None:
    """Mirror the run folder `path`; never returns."""
    settings: dict[str, Any] = json.loads(settings_json)
    run = RunDir(Path(path))
    record = Record.read(run, str(destination_of(settings)))
    record.problem = None
    _set_up()
    ending = Ending()
    calls = Calls(float(settings["finish_seconds"]))
    threading.Thread(target=_end_in_time, args=(run, record, ending, calls), daemon=True).start()
    try:
        _lock()
        hand_over(run, lambda found: Watched(new_tracker(settings, found), calls), record, ending)
    except BaseException as error:
        log.exception("the mirror failed")
        if record.problem is None:
            record.problem = f"{record.destination}: {type(error).__name__}: {error}"
        _write(record, run)
        _exit(FAILED)
    _exit(0)


def _set_up() -> None:
    """Signals, output, logs and priority of this process."""
    for signum in STOP_SIGNALS:  # on some clusters the worker's signals arrive here, too; this process ends after it
        signal.signal(signum, signal.SIG_IGN)
    standard_output_may_be_lost()
    log_plainly()
    hide_keys_in_logs()
    with suppress(OSError):
        os.nice(NICE)


def new_tracker(settings: dict[str, Any], record: Record) -> Tracker:
    """The tracker of a tracking config. Its package is imported here, so that a broken one is reported as a problem."""
    if settings["kind"] == "wandb":
        from moe_sweeps.tracking.wandb import WandbTracker

        return WandbTracker(settings, record)
    from moe_sweeps.tracking.tensorboard import TensorBoardTracker

    return TensorBoardTracker()


class Calls:
    """The call to the tracker that is in progress, and whether it has taken longer than `limit` seconds."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._since: float | None = None

    @contextmanager
    def one(self) -> Iterator[None]:
        """Time one call."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def too_long(self) -> bool:
        """Whether the call in progress is over its limit."""
        since = self._since
        return since is not None and time.monotonic() - since > self.limit


class Watched:
    """A tracker whose every call is timed."""

    def __init__(self, tracker: Tracker, calls: Calls) -> None:
        self.tracker, self.calls = tracker, calls

    def begin(self, facts: Facts) -> int:
        with self.calls.one():
            return self.tracker.begin(facts)

    def log(self, row: Row) -> None:
        with self.calls.one():
            self.tracker.log(row)

    def add_results(self, last: Row | None, results: Results) -> None:
        with self.calls.one():
            self.tracker.add_results(last, results)

    def end(self, state: State | None) -> None:
        with self.calls.one():
            self.tracker.end(state)


def _end_in_time(run: RunDir, record: Record, ending: Ending, calls: Calls) -> None:
    """Read from the worker how the run ended (an empty line: the worker is gone), and end this process in time.

    A tracker whose call takes longer than its limit is given up; at once if the limit passed before training ended.
    """
    word = sys.stdin.readline().strip()
    ending.set(State(word) if word else None)
    most = HOPELESS_SECONDS if record.problem else calls.limit + OWN_SECONDS
    deadline = time.monotonic() + most
    while time.monotonic() < deadline and not calls.too_long():
        time.sleep(LOOK_SECONDS)
    if record.problem is None:
        record.problem = f"{record.destination}: it did not answer for {calls.limit:g} s at the end of training"
    _write(record, run)
    _exit(LATE)


def _lock() -> None:
    """Wait until no other process mirrors this run in the same tracker.

    The lock is on the log file that is this process's output. wandb's service inherits it as its own output, so the
    lock ends when the last process is gone that could still write to the tracker's files.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(sys.stdout.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("another process mirrors this run there") from None
        except OSError as error:  # a file system without locks
            log.warning("no lock: %s", error)
            return
        time.sleep(0.2)


def _write(record: Record, run: RunDir) -> None:
    try:
        record.write(run)
    except Exception as error:  # the disk may be what failed; the worker then says that this process did
        log.warning("%s", without_keys(str(error)))


def _exit(code: int) -> None:
    """Exit without the exit handlers of other packages, which may wait for a network."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
