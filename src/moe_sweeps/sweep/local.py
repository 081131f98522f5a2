"""Runs of a sweep on this machine: one process a run, a few at a time, each isolated from the others' crashes.

One process drives a sweep. Whoever types the same line meanwhile follows, and takes over when the driver is gone.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from moe_sweeps.errors import DiskFull, MoeSweepsError, RunBusyError
from moe_sweeps.rundir import SETTLED, Failure, RunDir, State, Status
from moe_sweeps.sweep.gpus import VISIBLE, least_used, shared_gpus, visible_gpus
from moe_sweeps.sweep.process import BUSY, UNKNOWN, Worker, start

log = logging.getLogger(__name__)
POLL_SECONDS = 0.25
STOP_SECONDS = 60.0
Tick = Callable[[], None]
# Names a further run to train, given those that wait, train or are trained elsewhere; None while there is none.
Feed = Callable[[Collection[RunDir]], RunDir | None]


def drive(sweep_folder: Path, runs: Sequence[RunDir], workers: int, tick: Tick, said: Callable[[str], None]) -> None:
    """Train what is missing of `runs`; follow instead while another process does so for the same sweep.

    `tick` is called a few times a second, `said` gets a sentence when this process follows or takes over.

    Raises:
        KeyboardInterrupt: the process was asked to stop, and its workers have saved their state and ended.
    """
    lock, retry_failed = FileLock(sweep_folder / ".lock"), True
    while True:
        try:
            with lock.acquire(timeout=0):
                todo = [run for run in runs if _is_missing(run, retry_failed)]
                if todo and not retry_failed:
                    said("the process that ran this sweep is gone; going on here")
                LocalSweep(todo, workers).run(tick)
                return
        except Timeout:
            if retry_failed:
                said("another process runs this sweep; following it (Ctrl-C leaves it alone)")
            retry_failed = False  # what fails from now on has just been tried
            time.sleep(POLL_SECONDS)
            tick()


@dataclass(slots=True)
class LocalSweep:
    """The runs that are waiting, training and over. `run()` drives them to the end.

    `feed` is asked for a further run whenever a worker is free and nothing waits.
    """

    waiting: list[RunDir]
    workers: int
    active: dict[RunDir, Worker] = field(default_factory=dict)
    elsewhere: list[RunDir] = field(default_factory=list)
    stopping: bool = False
    feed: Feed | None = None
    gpus: list[str] = field(default_factory=visible_gpus)
    _places: dict[RunDir, str | None] = field(default_factory=dict)
    _environment: dict[str, str] = field(default_factory=dict)

    def run(self, tick: Tick) -> None:
        """Train everything; `tick` is called a few times a second.

        Raises:
            KeyboardInterrupt: the process was asked to stop, and the workers have saved their state and ended.
        """
        with self._stop_on_signals(), shared_gpus(self.gpus, self.workers) as self._environment:
            try:
                while not self.stopping:
                    self._fill()
                    if not (self.waiting or self.active or self.elsewhere):
                        break
                    self._wait()
                    self._collect()
                    tick()
            finally:
                self.stop()
                tick()
        if self.stopping:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """Ask every worker that still trains to save and end; end those that do not."""
        for process in self.active.values():
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for folder, process in self.active.items():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
                self._settle(folder, process, give_up=False)
        self.active.clear()

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """Note SIGINT, SIGTERM and SIGHUP instead of being interrupted anywhere."""

        def ask(signum: int, frame: FrameType | None) -> None:
            self.stopping = True

        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    def _fill(self) -> None:
        while self._in_use() < self.workers and not self.stopping:
            folder = self._next()
            if folder is None:
                return
            try:
                self.active[folder] = start(folder, self._environment | self._own_gpu(folder))
            except (MoeSweepsError, OSError) as error:
                _record_no_start(folder, error)

    def _next(self) -> RunDir | None:
        while self.waiting:
            folder = self.waiting.pop(0)
            if _is_missing(folder, retry_failed=True):  # else cancelled or finished elsewhere while it waited here
                return folder
        return self.feed([*self.active, *self.elsewhere]) if self.feed else None

    def _own_gpu(self, folder: RunDir) -> dict[str, str]:
        gpu = self._places[folder] = least_used(self.gpus, (self._places.get(run) for run in self.active))
        return {} if gpu is None else {VISIBLE: gpu}

    def _in_use(self) -> int:
        """Workers of this machine that train one of our runs, those of a driver that was killed among them."""
        return len(self.active) + sum(run.status().host == socket.gethostname() for run in self.elsewhere)

    def _wait(self) -> None:
        """Until a worker ends or the poll interval is over."""
        deadline = time.monotonic() + POLL_SECONDS
        while time.monotonic() < deadline and not self.stopping:
            if any(process.exitcode is not None for process in self.active.values()):
                return
            time.sleep(POLL_SECONDS / 10)

    def _collect(self) -> None:
        for folder, process in list(self.active.items()):
            if process.exitcode is None:
                continue
            process.join()
            del self.active[folder]
            if process.exitcode and not self._settle(folder, process):
                self.waiting.insert(0, folder)
        for folder in list(self.elsewhere):
            if not folder.is_locked():
                # Its other worker is gone: finished, or not, which a worker of ours finds out.
                self.elsewhere.remove(folder)
                if _is_missing(folder, retry_failed=False):
                    self.waiting.append(folder)

    def _settle(self, folder: RunDir, process: Worker, give_up: bool = True) -> bool:
        """See to a run whose worker ended with an error; False when it is to be gone on with."""
        try:
            if process.exitcode == BUSY:
                raise RunBusyError("its worker found it in other hands")
            return record_death(folder, process, give_up)
        except RunBusyError:
            self.elsewhere.append(folder)
        except (MoeSweepsError, OSError) as error:
            log.error("%s: its worker ended, and that could not be recorded: %s", folder.path.name, error)
        return True


def record_death(folder: RunDir, process: Worker, give_up: bool = True) -> bool:
    """Make a worker that ended without a word (SIGKILL, out of memory, no start at all) visible in its run's status.

    Returns whether the run is over for now. A run whose worker was killed is not, until with `give_up` it has died
    `launch.max_attempts_without_progress` times in a row without a new checkpoint.

    Raises:
        RunBusyError: another worker trains the run.
    """
    with folder.lock():
        status = folder.status()
        if not _died_without_a_word(status, process):
            return True
        status.count_death(folder.checkpoint_step())
        code, limit = process.exitcode or 0, folder.config()["launch"].get("max_attempts_without_progress", 3)
        killed = code < 0 or code == UNKNOWN
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        message = f"the worker process ended by {cause} without a traceback; see {folder.log}"
        if status.deaths > 1:
            message += f" ({status.deaths} attempts in a row reached no new checkpoint)"
        status.state = State.failed if not killed or (give_up and status.deaths >= limit) else State.preempted
        status.failure = Failure("WorkerDied", message, f"died: {cause}")
        folder.write_status(status)
        return status.state is State.failed


def _died_without_a_word(status: Status, process: Worker) -> bool:
    """False for a worker that said itself how it ended, and where another worker went on."""
    if status.state is State.running:
        return status.pid == process.pid
    never_began = status.state is State.planned or (status.state is State.preempted and status.failure is not None)
    return never_began and bool(process.exitcode)


def _record_no_start(folder: RunDir, error: Exception) -> None:
    try:
        with folder.lock():
            status = folder.status()
            status.state, status.failure = State.failed, folder.record_failure(error)
            folder.write_status(status)
    except (RunBusyError, DiskFull, OSError) as second:
        log.error("%s: %s (%s)", folder.path.name, error, second)


def _is_missing(run: RunDir, retry_failed: bool) -> bool:
    state = run.status().state
    return state not in SETTLED and (retry_failed or state is not State.failed)
