"""The process around a mirror: it holds the lock, hears how the run ended, and ends in time whatever happens."""

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

from moe_sweeps.keys import without_keys
from moe_sweeps.mirroring import OWN_SECONDS, Record, destination_of
from moe_sweeps.rundir import RunDir, State
from moe_sweeps.tracking.mirror import Ending, mirror
from moe_sweeps.tracking.rows import Row
from moe_sweeps.tracking.tracker import Facts, Results, Tracker

log = logging.getLogger(__name__)
FAILED, LATE = 1, 3
# Signals for the worker reach this process, too, on some clusters. It ends when the worker does.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
LOCK_SECONDS = 60.0
HOPELESS_SECONDS = 1.0  # what a tracker gets at the end that has failed so far
LOOK_SECONDS = 0.1
NICE = 5  # training goes first


def main(path: str, settings_json: str) -> None:
    """Mirror the run folder `path`; never returns."""
    settings: dict[str, Any] = json.loads(settings_json)
    run = RunDir(Path(path))
    record = Record.read(run, str(destination_of(settings)))
    record.problem = None
    for signum in IGNORED:
        signal.signal(signum, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    ending = Ending()
    calls = Calls(float(settings["finish_seconds"]))
    threading.Thread(target=_end_in_time, args=(run, record, ending, calls), daemon=True).start()
    try:
        with suppress(OSError):
            os.nice(NICE)
        _lock()
        mirror(run, lambda found: Watched(new_tracker(settings, found), calls), record, ending)
    except BaseException as error:
        log.exception("the mirror failed")
        if record.problem is None:
            record.problem = f"{record.destination}: {type(error).__name__}: {error}"
        _write(record, run)
        _exit(FAILED)
    _exit(0)


def new_tracker(settings: dict[str, Any], record: Record) -> Tracker:
    """The tracker of a tracking config. Its package is imported here, so that one that is broken is a problem said."""
    if settings["kind"] == "wandb":
        from moe_sweeps.tracking.wandb import WandbTracker

        return WandbTracker(settings, record)
    from moe_sweeps.tracking.tensorboard import TensorBoardTracker

    return TensorBoardTracker()


class Calls:
    """How long the tracker has been busy with one thing that was asked of it."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._since: float | None = None

    @contextmanager
    def one(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def too_long(self) -> bool:
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
    """Hear from the worker how the run ended (nothing: the worker is gone), and end this process in time.

    A tracker that is busy with one call for longer than its limit is given up, at once if it was before training ended.
    """
    word = sys.stdin.readline().strip()
    ending.come(State(word) if word else None)
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
    """End now: handlers that other packages registered for the end may wait for a network."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
